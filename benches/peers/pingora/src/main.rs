//! Pingora as a peer: a TLS proxy that checks nothing, sets one header for the upstream and writes a line a request.
//!
//! `pingora-peer ADDRESS UPSTREAM CERTIFICATE KEY CREDENTIAL LOG`, with one worker; the credential is the header's value.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{Error, HttpPeer, RequestHeader, Result, Server};
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;

const LOG_BUFFER: usize = 64 * 1024;

struct Peer {
    upstream: String,
    credential: String,
    log: Mutex<BufWriter<File>>,
}

#[async_trait]
impl ProxyHttp for Peer {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        request.insert_header("x-upstream-credential", self.credential.as_str())
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, (): &mut ()) {
        let request = session.req_header();
        let line = serde_json::json!({
            "method": request.method.as_str(),
            "path": request.uri.path(),
            "status": session.response_written().map_or(0, |response| response.status.as_u16()),
            "client": session.client_addr().map(ToString::to_string),
        });
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let _best_effort = writeln!(log, "{line}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, upstream, certificate, key, credential, log] = arguments.as_slice() else {
        eprintln!("pingora-peer ADDRESS UPSTREAM CERTIFICATE KEY CREDENTIAL LOG");
        std::process::exit(2);
    };
    let settings = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 256,
        // Ends when it is told to.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let log = BufWriter::with_capacity(LOG_BUFFER, File::create(log).expect("the log can be written"));
    let peer = Peer { upstream: upstream.clone(), credential: credential.clone(), log: Mutex::new(log) };
    let mut service = http_proxy_service(&server.configuration, peer);
    let mut tls = TlsSettings::intermediate(certificate, key).expect("certificate and key belong together");
    tls.enable_h2();
    service.add_tls_with_settings(address, None, tls);
    server.add_service(service);
    server.run_forever();
}
