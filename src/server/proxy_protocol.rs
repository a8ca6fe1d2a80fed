//! PROXY protocol v1 and v2: required from the peers that configuration names, never read from anybody else.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use proxy_header::{Error as HeaderError, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest header read: section 2.2 gives v2 at most 536 bytes where TLVs are few.
const LONGEST_HEADER: usize = 536;

/// Largest header of v1, its line break included (section 2.1). The parser asks only while it waits for more.
const LONGEST_V1_HEADER: usize = 107;

const V1_OPENING: &[u8] = b"PROXY ";

/// Why a named peer was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyProtocolError {
    #[error("the connection ended before its PROXY header did")]
    Ended,
    #[error("the PROXY header is missing or malformed")]
    Malformed,
    #[error("the PROXY header is longer than {LONGEST_HEADER} bytes")]
    TooLong,
    #[error("the PROXY header speaks of a datagram")]
    Datagram,
    #[error("the connection failed before its PROXY header ended")]
    Io(#[from] std::io::Error),
}

/// Whether `peer` has to open with a header.
pub(super) fn required_from(networks: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    networks.iter().any(|network| network.contains(&peer))
}

/// Reads the header. Gives the address of the client, or `None` where the peer speaks for itself (`LOCAL`,
/// `UNKNOWN`, an address that is no IP address), and the bytes that came after the header.
pub(crate) async fn read_header<S>(stream: &mut S) -> Result<(Option<SocketAddr>, Bytes), ProxyProtocolError>
where
    S: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(LONGEST_HEADER);
    loop {
        if let Some((address, length)) = parse(&buffer)? {
            return Ok((address, buffer.split_off(length).freeze()));
        }
        let room = LONGEST_HEADER.saturating_sub(buffer.len());
        if room == 0 {
            return Err(ProxyProtocolError::TooLong);
        }
        let limit = u64::try_from(room).unwrap_or(0);
        if (&mut *stream).take(limit).read_buf(&mut buffer).await? == 0 {
            return Err(ProxyProtocolError::Ended);
        }
    }
}

/// `None` while more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, ProxyProtocolError> {
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    // The parser skips the sixth byte of v1 unread.
    let opening = bytes.iter().zip(V1_OPENING);
    if bytes.first() == Some(&b'P') && opening.clone().any(|(byte, expected)| byte != expected) {
        return Err(ProxyProtocolError::Malformed);
    }
    let (header, length) = match ProxyHeader::parse(bytes, config) {
        Ok(parsed) => parsed,
        Err(HeaderError::BufferTooShort) => return Ok(None),
        Err(
            HeaderError::Invalid
            | HeaderError::AddressFamilyMismatch
            | HeaderError::HeaderTooBig
            | HeaderError::V1UnsupportedTlv
            | HeaderError::V1UnsupportedProtocol,
        ) => return Err(ProxyProtocolError::Malformed),
    };
    if bytes.first() == Some(&b'P') && length > LONGEST_V1_HEADER {
        return Err(ProxyProtocolError::Malformed);
    }
    match header.proxied_address() {
        None => Ok(Some((None, length))),
        Some(proxied) if proxied.protocol == Protocol::Stream => Ok(Some((Some(proxied.source), length))),
        Some(_) => Err(ProxyProtocolError::Datagram),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(Option<SocketAddr>, Bytes), ProxyProtocolError> {
        let mut stream = bytes;
        let (address, mut rest) = read_header(&mut stream).await?;
        // What was not read yet follows what was read too early.
        rest = [&rest, stream].concat().into();
        Ok((address, rest))
    }

    fn version_two(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\x00\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    #[tokio::test]
    async fn a_version_one_header_names_the_client_and_leaves_the_rest() {
        let (address, rest) = read(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\nGET /").await.unwrap();
        assert_eq!((address, &rest[..]), (Some("192.0.2.7:4711".parse().unwrap()), &b"GET /"[..]));
    }

    #[tokio::test]
    async fn a_version_two_header_names_the_client_and_leaves_the_rest() {
        let mut bytes = version_two(1, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
        bytes.extend(b"\x16\x03\x01");
        let (address, rest) = read(&bytes).await.unwrap();
        assert_eq!((address, &rest[..]), (Some("192.0.2.7:4711".parse().unwrap()), &b"\x16\x03\x01"[..]));
    }

    #[tokio::test]
    async fn a_header_that_arrives_byte_by_byte_is_read() {
        let (mut client, mut server) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut client, b"PROXY TCP6 2001:db8::1 ::1 1 443\r\n").await.unwrap();
            client
        });
        let (address, rest) = read_header(&mut server).await.unwrap();
        assert_eq!((address, rest.len()), (Some("[2001:db8::1]:1".parse().unwrap()), 0));
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_health_check_of_the_balancer_speaks_for_itself() {
        assert_eq!(read(b"PROXY UNKNOWN\r\n").await.unwrap().0, None);
        assert_eq!(read(&version_two(0, 0, b"")).await.unwrap().0, None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n",
            b"PROXYxTCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 1 443\r\n",
        ] {
            assert!(matches!(read(bytes).await, Err(ProxyProtocolError::Malformed)), "{bytes:?}");
        }
        let datagram = version_two(1, 0x12, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
        assert!(matches!(read(&datagram).await, Err(ProxyProtocolError::Datagram)));
    }

    #[tokio::test]
    async fn a_version_one_header_has_one_limit_however_it_arrives() {
        let of = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - "PROXY UNKNOWN \r\n".len()));
        assert_eq!(read(of(107).as_bytes()).await.unwrap().0, None);
        for bytes in [108, 160, 500] {
            let line = of(bytes);
            assert!(matches!(read(line.as_bytes()).await, Err(ProxyProtocolError::Malformed)), "{bytes}");
            let (one, other) = line.as_bytes().split_at(60);
            let mut pieces = one.chain(other);
            assert!(read_header(&mut pieces).await.is_err(), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_header_is_read_no_further_than_its_bound() {
        let long = version_two(1, 0x11, &[0; 4096]);
        assert!(matches!(read(&long).await, Err(ProxyProtocolError::TooLong)));
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 4096]].concat();
        assert!(read(&endless).await.is_err());
        assert!(matches!(read(b"PROXY TCP4 192.0").await, Err(ProxyProtocolError::Ended)));
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let networks = ["10.0.0.5/32".parse().unwrap()];
        assert!(required_from(&networks, "::ffff:10.0.0.5".parse().unwrap()));
        assert!(!required_from(&networks, "10.0.0.6".parse().unwrap()));
    }
}
