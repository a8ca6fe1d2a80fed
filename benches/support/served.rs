//! Doorward, the bare proxy and an upstream inside this process, on loopback.

use std::net::{Ipv4Addr, SocketAddr};

use doorward::app::{self, Options, Running};
use doorward::server::ListenAddress;
use tokio::net::TcpListener;

use super::world::{World, server_tls};
use super::{bare, upstream};

/// All three, running.
pub struct Served {
    /// The product.
    pub running: Running,
    /// What it was started with.
    pub world: World,
    /// Address of the product.
    pub doorward: SocketAddr,
    /// Address of the bare proxy.
    pub bare: SocketAddr,
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

impl Served {
    /// Starts all of them, the product with this many policies.
    pub async fn start(policies: usize) -> Self {
        Self::with(|upstream| World::new(upstream, policies)).await
    }

    /// Starts all of them, the product with a world made for the upstream.
    pub async fn with(world: impl FnOnce(SocketAddr) -> World) -> Self {
        let listener = listen().await;
        let upstream = listener.local_addr().expect("an address");
        tokio::spawn(upstream::serve(listener));
        let world = world(upstream);
        let listener = listen().await;
        let bare = listener.local_addr().expect("an address");
        tokio::spawn(bare::serve(listener, server_tls(world.directory()), upstream));
        let options = Options { config: world.configuration(), ..Options::default() };
        let running = app::start(options).await.expect("doorward starts");
        let Some(ListenAddress::Tcp(doorward)) = running.addresses().get("public").cloned() else {
            panic!("the listener has an address")
        };
        Self { running, world, doorward, bare, upstream }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port")
}
