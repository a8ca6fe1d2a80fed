//! Connections of the outbound client: name lookup, TCP and TLS within one deadline.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower::Service;

use super::{OutboundSettings, PlainHttp, provider};
use crate::body::BoxError;

/// Addresses of one name that are tried, at most.
const ADDRESSES: usize = 4;

/// Makes connections for hyper-util's client.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    deadline: Duration,
    plain_http: PlainHttp,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connector").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(settings: &OutboundSettings) -> Result<Self, BoxError> {
        let system = || rustls_native_certs::load_native_certs().certs;
        let roots = roots(settings.authorities_pem.as_deref(), system)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &settings.client_certificate {
            None => config.with_no_client_auth(),
            Some(identity) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified().clone())))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (deadline, plain_http) = (settings.connect_deadline, settings.plain_http);
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), deadline, plain_http })
    }

    async fn connect(self, address: Uri) -> Result<Stream, BoxError> {
        let https = address.scheme_str() == Some("https");
        let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = address.port_u16().unwrap_or(if https { 443 } else { 80 });
        let mut candidates: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
        if !https {
            candidates.retain(|candidate| self.plain_http.allows(candidate.ip()));
        }
        candidates.truncate(ADDRESSES);
        let tcp = self.first_reachable(&candidates).await?;
        tcp.set_nodelay(true)?;
        if !https {
            return Ok(Stream(Either::Left(tcp)));
        }
        let tls = self.tls.connect(ServerName::try_from(host)?, tcp).await?;
        Ok(Stream(Either::Right(Box::new(tls))))
    }

    /// One after the other; each has an equal share of the deadline, so that one dead address does not eat it all.
    async fn first_reachable(&self, candidates: &[SocketAddr]) -> io::Result<TcpStream> {
        let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1);
        let share = self.deadline / count;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address that may be called");
        for candidate in candidates {
            match tokio::time::timeout(share, TcpStream::connect(candidate)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no connection in time"),
            }
        }
        Err(last)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;

    type Error = BoxError;

    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let (connector, deadline) = (self.clone(), self.deadline);
        Box::pin(async move {
            let connected = tokio::time::timeout(deadline, connector.connect(address)).await;
            Ok(TokioIo::new(connected.map_err(|_| "no connection in time")??))
        })
    }
}

/// The authorities of `authorities_pem` and no others: whoever names one does not want every public authority to be
/// able to stand in for the issuer. Without any, the system's, as far as they can be read.
fn roots(
    authorities_pem: Option<&[u8]>,
    system: impl FnOnce() -> Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = authorities_pem else {
        roots.add_parsable_certificates(system());
        return Ok(roots);
    };
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err("no certificate in it".into());
    }
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub(super) struct Stream(Either<TcpStream, Box<TlsStream<TcpStream>>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(name: &str) -> rcgen::Certificate {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn named_authorities_stand_instead_of_the_systems_and_not_beside_them() {
        let (public, own) = (authority("public"), authority("own"));
        let system = || vec![public.der().clone()];
        let subjects = |pem: Option<&str>| {
            let roots = roots(pem.map(str::as_bytes), system).unwrap();
            roots.roots.iter().map(|root| root.subject.to_vec()).collect::<Vec<_>>()
        };
        let (named, unnamed) = (subjects(Some(&own.pem())), subjects(None));
        assert_eq!((named.len(), unnamed.len()), (1, 1));
        assert_ne!(named, unnamed);
    }
}
