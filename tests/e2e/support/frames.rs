//! Frames of HTTP/2, for what no client library would send.

use tokio_rustls::TlsConnector;

use super::{Authority, HOST, RawConnection, RunningGate};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A connection to the gate on which the preface was sent.
pub(crate) async fn connect(gate: &RunningGate, authority: &Authority) -> RawConnection {
    let mut config = authority.client_config(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(gate.address()).await.unwrap();
    let connecting = TlsConnector::from(std::sync::Arc::new(config)).connect(HOST.try_into().unwrap(), socket);
    let mut connection = RawConnection::new(connecting.await.unwrap());
    connection.send(PREFACE).await;
    connection
}

/// One frame (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal field without indexing (RFC 7541 section 6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The head of a GET.
pub(crate) fn head(path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", path)];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}
