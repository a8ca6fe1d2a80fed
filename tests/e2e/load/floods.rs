//! Floods of HTTP/2 frames from many connections at once, and what a caller beside them notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::share;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, connect, frame, head, literal,
};
use crate::support::{RawConnection, Script, World};

const FLOODERS: usize = 8;
const MOST_GROWTH_KIB: u64 = 64 * 1024;

/// One connection's worth of a flood.
async fn pour(kind: &str, connection: &mut RawConnection) {
    let begin = |stream: u32, flags: u8, path: &str| frame(HEADERS, flags, stream, &head(path));
    for number in 0..300_u32 {
        let stream = 2 * number + 1;
        let bytes: Vec<u8> = match kind {
            "resets" => {
                [begin(stream, END_STREAM | END_HEADERS, "/flood"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                    .concat()
            }
            "resets that we are made to send" => {
                [begin(stream, END_HEADERS, "/flood"), frame(8, 0, stream, &[0; 4])].concat()
            }
            "continuations" if number == 0 => begin(1, END_STREAM, "/flood"),
            "continuations" => frame(
                CONTINUATION,
                0,
                1,
                &(0..60).flat_map(|_| literal("x-filler", &"a".repeat(100))).collect::<Vec<_>>(),
            ),
            "settings" => frame(SETTINGS, 0, 0, &[]).repeat(50),
            "pings" => frame(PING, 0, 0, &[0; 8]).repeat(50),
            "empty data" if number == 0 => begin(1, END_HEADERS, "/flood"),
            "empty data" => frame(DATA, 0, 1, &[]).repeat(50),
            "unpacking heads" => {
                let mut fields = head("/flood");
                fields.extend([0x40, 1, b'x', 0x7f, 0x91, 0x17]);
                fields.extend(vec![b'a'; 127 + 0x11 + 0x17 * 128]);
                fields.extend(vec![0x80 | 62; 10_000]);
                frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields)
            }
            "closed windows" if number == 0 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
            "closed windows" => begin(stream, END_STREAM | END_HEADERS, "/public/large"),
            other => unreachable!("{other}"),
        };
        connection.send(bytes).await;
    }
    if kind == "closed windows" {
        // Frames are taken in turn: an answered PING says that all of these were.
        connection.send(frame(PING, 0, 0, b"was-read")).await;
        connection.hears(b"was-read").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flood_of_frames_is_felt_by_another_caller_nor_grows_the_process() {
    let public = serde_json::json!({ "path": "/public/{*rest}", "public": { "reason": "a test's flood" } });
    let world = Arc::new(World::start(|gate| gate.route("public", public)).await);
    world.gate.becomes_ready(200).await;
    let page = "x".repeat(1 << 20).leak();
    world.upstream.script("/public/large", Script::Fixed(http::StatusCode::OK, Vec::new(), page));
    let token = world.token();
    for kind in [
        "resets",
        "resets that we are made to send",
        "continuations",
        "settings",
        "pings",
        "empty data",
        "unpacking heads",
        "closed windows",
    ] {
        let before = world.gate.resident_kib();
        let going = Arc::new(AtomicBool::new(true));
        let flooders: Vec<_> = (0..FLOODERS)
            .map(|_| {
                let (world, going) = (world.clone(), going.clone());
                tokio::spawn(async move {
                    while going.load(Ordering::Relaxed) {
                        let mut connection = connect(&world.gate, &world.authority).await;
                        pour(kind, &mut connection).await;
                    }
                })
            })
            .collect();
        let (mut slowest, mut most) = (Duration::ZERO, before);
        for number in 0..share(300) {
            let asked = Instant::now();
            let path = format!("/things/{}", number % 10);
            assert_eq!(world.gate.get(&path).bearer(&token).send().await.status, 200, "{kind}");
            slowest = slowest.max(asked.elapsed());
            most = most.max(world.gate.resident_kib());
        }
        going.store(false, Ordering::Relaxed);
        for flooder in flooders {
            flooder.await.unwrap();
        }
        let grown = most.saturating_sub(before);
        println!("{kind} by {FLOODERS}: another caller waited {slowest:?} at most, and {grown} KiB more were held");
        assert!(slowest < Duration::from_secs(5), "{kind}: {slowest:?}");
        assert!(grown < MOST_GROWTH_KIB, "{kind}: {grown} KiB");
    }
    assert!(!world.gate.log().contains("panic"), "{}", world.gate.log());
}
