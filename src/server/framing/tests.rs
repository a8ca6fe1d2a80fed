use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1024;

/// What becomes of `text`, read in pieces of `size` bytes: the fault, how many bytes passed, and whether a head has it.
fn read(text: &[u8], size: usize) -> Result<(), (Anomaly, usize, bool)> {
    let mut framing = Framing::new(LIMIT);
    for (index, piece) in text.chunks(size).enumerate() {
        framing.look(piece).map_err(|refused| (refused.anomaly, index * size + refused.passed, refused.in_head))?;
    }
    Ok(())
}

fn anomaly(text: &str) -> Option<Anomaly> {
    let outcomes: Vec<_> =
        [1, 2, 3, 7, 64, 4096].map(|size| read(text.as_bytes(), size).err().map(|(anomaly, ..)| anomaly)).into();
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{text:?} depends on how it is cut: {outcomes:?}");
    outcomes[0]
}

#[test]
fn what_is_framed_in_one_way_passes() {
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "\r\nGET /a?b=c HTTP/1.0\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nX-Tab: \ta\tb \r\nX-Beyond: z\u{eb}\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\n\r\0\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nChecksum: x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    ] {
        assert_eq!(anomaly(text), None, "{text:?}");
    }
}

#[test]
fn a_head_has_one_limit_however_it_is_cut() {
    let line = "GET / HTTP/1.1\r\n";
    let of = |bytes: usize| format!("{line}A: {}\r\n\r\n", "b".repeat(bytes - line.len() - "A: \r\n\r\n".len()));
    assert_eq!(of(LIMIT).len(), LIMIT);
    assert_eq!(anomaly(&of(LIMIT)), None);
    for bytes in [LIMIT + 1, LIMIT + 2, LIMIT + 3] {
        assert_eq!(anomaly(&of(bytes)), Some(Anomaly::HeadTooLarge), "{bytes}");
    }
    let never_ended = of(LIMIT + 500).replace("\r\n\r\n", "\n");
    assert_eq!(anomaly(&never_ended), Some(Anomaly::HeadTooLarge));
}

#[test]
fn what_two_readers_could_frame_differently_is_refused() {
    let get = |field: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let chunks = |text: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{text}");
    let heads = [
        ("GET / HTTP/1.1\n\n".to_owned(), Anomaly::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), Anomaly::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(), Anomaly::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n".to_owned(), Anomaly::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n".to_owned(), Anomaly::LineEnd),
        ("\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET  / HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET / HTTP/1.1 \r\n\r\n".to_owned(), Anomaly::RequestLine),
        (" GET / HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET\t/ HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET / HTTP/1.2\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET / http/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET /\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("G(T / HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET /\u{e9} HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        ("GET /\0 HTTP/1.1\r\n\r\n".to_owned(), Anomaly::RequestLine),
        (get(" folded"), Anomaly::Field),
        (get("X: a\r\n b"), Anomaly::Field),
        (get("X : a"), Anomaly::Field),
        (get("X\t: a"), Anomaly::Field),
        (get(": a"), Anomaly::Field),
        (get("nothing"), Anomaly::Field),
        (get("X: a\0b"), Anomaly::Field),
        (get("X: a\u{7f}b"), Anomaly::Field),
        (get("X\u{b}: a"), Anomaly::Field),
        (get("Content-Length : 3"), Anomaly::Field),
        (get("Content-Length: 3\r\nContent-Length: 3"), Anomaly::ContentLength),
        (get("Content-Length: 3, 3"), Anomaly::ContentLength),
        (get("Content-Length: +3"), Anomaly::ContentLength),
        (get("Content-Length: -1"), Anomaly::ContentLength),
        (get("Content-Length: 0x3"), Anomaly::ContentLength),
        (get("Content-Length: 3 3"), Anomaly::ContentLength),
        (get("Content-Length:"), Anomaly::ContentLength),
        (get("Content-Length: \u{b2}"), Anomaly::ContentLength),
        (get("Content-Length: 18446744073709551615"), Anomaly::ContentLength),
        (get("Content-Length: 18446744073709551619"), Anomaly::ContentLength),
        (get("Transfer-Encoding: gzip, chunked"), Anomaly::TransferEncoding),
        (get("Transfer-Encoding: chunked, identity"), Anomaly::TransferEncoding),
        (get("Transfer-Encoding: identity"), Anomaly::TransferEncoding),
        (get("Transfer-Encoding: xchunked"), Anomaly::TransferEncoding),
        (get("Transfer-Encoding: \"chunked\""), Anomaly::TransferEncoding),
        (get("Transfer-Encoding: chunked;a=b"), Anomaly::TransferEncoding),
        (get("Transfer-Encoding:"), Anomaly::TransferEncoding),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Anomaly::TransferEncoding),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Anomaly::TransferEncoding),
        (get("Content-Length: 3\r\nTransfer-Encoding: chunked"), Anomaly::TwoFramings),
        (get("Transfer-Encoding: chunked\r\nContent-Length: 0"), Anomaly::TwoFramings),
        (get(&format!("X: {}", "x".repeat(LIMIT))), Anomaly::HeadTooLarge),
        (get(&"X: xxxxxx\r\n".repeat(LIMIT / 10)), Anomaly::HeadTooLarge),
    ];
    for (text, expected) in heads {
        assert_eq!(anomaly(&text), Some(expected), "{text:?}");
        let (_, passed, in_head) = read(text.as_bytes(), 1 << 20).unwrap_err();
        assert!(in_head && text[..passed].trim_ascii().is_empty(), "{text:?}");
    }
    let bodies = [
        ("\r\n", Anomaly::Chunk),
        ("3\nabc\r\n", Anomaly::LineEnd),
        ("3 \r\nabc\r\n", Anomaly::Chunk),
        (" 3\r\nabc\r\n", Anomaly::Chunk),
        ("3 ;x\r\nabc\r\n", Anomaly::Chunk),
        ("0x3\r\nabc\r\n", Anomaly::Chunk),
        ("+3\r\nabc\r\n", Anomaly::Chunk),
        ("-1\r\nabc\r\n", Anomaly::Chunk),
        ("3\rabc\r\n", Anomaly::LineEnd),
        ("3;x\0\r\nabc\r\n", Anomaly::Chunk),
        ("3;\nabc\r\n", Anomaly::LineEnd),
        ("3\r\nabcd\r\n", Anomaly::Chunk),
        ("3\r\nabc\n0\r\n\r\n", Anomaly::LineEnd),
        ("10000000000000000\r\n", Anomaly::Chunk),
        ("0\r\nContent-Length: 3\r\n\r\n", Anomaly::Trailer),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", Anomaly::Trailer),
        ("0\r\nHost: evil\r\n\r\n", Anomaly::Trailer),
        ("0\r\n folded\r\n\r\n", Anomaly::Field),
        ("0\r\nX: a\n\r\n", Anomaly::LineEnd),
    ];
    for (text, expected) in bodies {
        assert_eq!(anomaly(&chunks(text)), Some(expected), "{text:?}");
        let (_, _, in_head) = read(chunks(text).as_bytes(), 1 << 20).unwrap_err();
        assert!(!in_head, "{text:?}");
    }
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(EXTENSION_BYTES));
    assert_eq!(anomaly(&chunks(&long)), Some(Anomaly::Chunk));
    let many = format!("0\r\n{}\r\n", "X: xxxxxx\r\n".repeat(LIMIT / 10));
    assert_eq!(anomaly(&chunks(&many)), Some(Anomaly::HeadTooLarge));
}

#[test]
fn what_came_before_a_fault_passes_and_nothing_after_it() {
    let good = "POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let text = format!("{good}GET /2 HTTP/1.1\r\nHost: a\nX: b\r\n\r\n");
    let (_, passed, in_head) = read(text.as_bytes(), 1 << 20).unwrap_err();
    assert_eq!((passed, in_head), (good.len(), true));
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_changes_nothing(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "POST /a HTTP/1.0\r\n", "Host: a\r\n", "Content-Length: 3\r\n", "abc", "\r\n", "\n", "\r",
            "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n", "0\r\n\r\n", " ", ":", "X: y\r\n", "0\r\n", "5;x\r\n", "\0",
        ]), 0..12),
        cuts in prop::collection::vec(1_usize..9, 1..40),
    ) {
        let text = pieces.concat();
        let whole = read(text.as_bytes(), usize::MAX).map_err(|(anomaly, ..)| anomaly);
        let mut framing = Framing::new(LIMIT);
        let (mut rest, mut cuts) = (text.as_bytes(), cuts.into_iter().cycle());
        let mut cut = Ok(());
        while let (false, Ok(())) = (rest.is_empty(), cut) {
            let (piece, left) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            cut = framing.look(piece).map_err(|refused| refused.anomaly);
            rest = left;
        }
        prop_assert_eq!(cut, whole);
    }
}
