//! The lure: an address that tokens and targets name, and that must hear nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) struct Lure {
    pub(crate) address: SocketAddr,
    heard: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Lure {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<AtomicU64>::default();
        let mut tasks = JoinSet::new();
        let hearing = heard.clone();
        tasks.spawn(async move {
            loop {
                listener.accept().await.unwrap();
                hearing.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, heard, _tasks: tasks }
    }

    /// How many connections came.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }
}
