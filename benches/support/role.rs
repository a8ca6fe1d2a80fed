//! A benchmark's own executable as another process: the bare proxy or the upstream, each on one thread.

use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::world::server_tls;
use super::{bare, upstream};

/// Plays a role until killed: its name, the file to write its address to, the world's directory, and the rest.
///
/// [`Process::role`](super::process::Process::role) starts it with the word `role` before them.
pub fn play(arguments: &[&str]) -> ! {
    let [name, address_file, directory, rest @ ..] = arguments else { panic!("not a role: {arguments:?}") };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let draft = format!("{address_file}.new");
        std::fs::write(&draft, address).expect("a file");
        std::fs::rename(&draft, address_file).expect("a file");
        match (*name, rest) {
            ("bare", [upstream]) => {
                let tls = server_tls(directory.as_ref());
                bare::serve(listener, tls, upstream.parse().expect("an address")).await;
            }
            ("upstream", []) => upstream::serve(listener).await,
            _ => panic!("no role `{name}`"),
        }
    });
    std::process::exit(0)
}
