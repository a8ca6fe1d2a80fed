//! A bound socket and its accept loop, which outlives a full descriptor table.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use super::settings::ListenAddress;
use super::stream::Socket;

const BACKLOG: i32 = 4096;

/// Who may connect to a Unix socket: owner and group.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// When the kernel begins to ask whether a silent peer still lives; upgraded connections have no other check.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A bound listener.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket; removed on drop, if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // Nothing is left to tell when it cannot be removed; the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

impl Listener {
    /// Binds and listens. A stale Unix socket is replaced when nobody answers on it.
    pub(super) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address),
            ListenAddress::Unix(path) => bind_unix(path),
        }
    }

    /// The address in force: with port 0, the port that the system chose.
    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_, file) => Ok(ListenAddress::Unix(file.path.clone())),
        }
    }

    /// The next connection and its peer; a Unix socket's peer is `127.0.0.1:0`. Never fails: what goes wrong is
    /// waited out, because a proxy that stops accepting is down.
    pub(super) async fn accept(&self) -> (Socket, SocketAddr) {
        let mut pause = Pause::default();
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                    // Fails only on a connection that is gone already.
                    let _ = stream.set_nodelay(true);
                    (Socket::Tcp(stream), SocketAddr::new(peer.ip().to_canonical(), peer.port()))
                }),
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                    (Socket::Unix(stream), nobody)
                }),
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if pause.is_first() {
                        tracing::warn!(%error, "accepting pauses until the system can open connections again");
                    }
                    tokio::time::sleep(pause.next()).await;
                }
            }
        }
    }
}

/// Whether the error belongs to a connection that ended before it was accepted, and the next may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

/// How long to wait while the process (EMFILE) or the system (ENFILE) has no descriptor left: 10 ms, doubling to 1 s.
#[derive(Debug, Default)]
struct Pause {
    times: u32,
}

impl Pause {
    fn is_first(&self) -> bool {
        self.times == 0
    }

    fn next(&mut self) -> Duration {
        let pause = Duration::from_millis(10_u64 << self.times.min(7));
        self.times = self.times.saturating_add(1);
        pause.min(Duration::from_secs(1))
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // Accepted sockets inherit it.
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(Listener::Tcp(TcpListener::from_std(socket.into())?))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_if_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), inode: inode(path) };
    // Before `listen`: nobody can have connected while the mode was another.
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into())?, file))
}

fn remove_if_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
    }
    // Without blocking: a full queue answers at once, and means that somebody is there.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody answers on this socket")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[test]
    fn a_full_descriptor_table_is_waited_out_and_an_aborted_connection_is_not() {
        for (number, one) in [(24, false), (23, false), (105, false), (103, true), (104, true), (4, true)] {
            assert_eq!(concerns_one_connection(&io::Error::from_raw_os_error(number)), one, "{number}");
        }
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..20).map(|_| pause.next()).collect();
        assert_eq!((pauses[0], pauses[1]), (Duration::from_millis(10), Duration::from_millis(20)));
        assert_eq!(pauses[19], Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_one_that_answers_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("doorward.sock");
        // The standard library's listener leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = ListenAddress::Unix(path.clone());
        let listener = Listener::bind(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

        let second = Listener::bind(&address).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        connected.unwrap();
        assert_eq!(accepted.1, "127.0.0.1:0".parse().unwrap());

        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "keep me").unwrap();
        let error = Listener::bind(&ListenAddress::Unix(path.clone())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "keep me");
    }

    #[tokio::test]
    async fn port_zero_reports_the_port_that_was_chosen() {
        let listener = Listener::bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let ListenAddress::Tcp(address) = listener.address().unwrap() else { panic!("not TCP") };
        assert_ne!(address.port(), 0);
    }
}
