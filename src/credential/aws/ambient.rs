//! Keys that the place where Doorward runs gives it: environment, container endpoint (ECS, EKS Pod Identity), instance
//! metadata (IMDSv2). They assume roles, and nothing else.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;

use crate::credential::SourceError;
use crate::credential::exchange::send;
use crate::credential::sigv4::AwsKeys;
use crate::outbound::OutboundClient;
use crate::secret::Secret;

/// Base address of the instance metadata service.
pub const INSTANCE_METADATA: &str = "http://169.254.169.254";
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const LISTING: &str = "/latest/meta-data/iam/security-credentials/";
/// Role names are shorter.
const LONGEST_NAME: usize = 128;

/// Where ambient keys come from.
#[derive(Clone)]
pub enum AmbientKeys {
    /// The environment that Doorward was started in.
    Environment(AwsKeys),
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` or `…_RELATIVE_URI`.
    Container {
        /// The address.
        url: Arc<str>,
        /// What `Authorization` says there.
        authorization: Option<ContainerToken>,
        /// How to reach it.
        client: OutboundClient,
    },
    /// Instance metadata, version 2: a session token for each reading.
    Instance {
        /// Base address.
        url: Arc<str>,
        /// How to reach it.
        client: OutboundClient,
    },
}

/// The token of a container's endpoint. `Debug` shows none.
#[derive(Clone, Debug)]
pub enum ContainerToken {
    /// As it is.
    Text(Secret),
    /// In a file that is replaced from time to time.
    File(PathBuf),
}

impl fmt::Debug for AmbientKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: Secret,
    token: Option<Secret>,
}

impl AmbientKeys {
    /// Name in configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Environment(_) => "environment",
            Self::Container { .. } => "container",
            Self::Instance { .. } => "instance",
        }
    }

    /// The keys that hold now. Whoever gives them keeps them, so they are asked for at each turn.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn keys(&self) -> Result<AwsKeys, SourceError> {
        match self {
            Self::Environment(keys) => Ok(keys.clone()),
            Self::Container { url, authorization, client } => {
                let headers = match authorization {
                    None => Vec::new(),
                    Some(token) => vec![(AUTHORIZATION, token.value().await?)],
                };
                read(&ask(client, Method::GET, url, headers).await?)
            }
            Self::Instance { url, client } => {
                let ttl = vec![(TOKEN_TTL, HeaderValue::from_static("60"))];
                let token = ask(client, Method::PUT, &format!("{url}/latest/api/token"), ttl).await?;
                let mut token = HeaderValue::from_bytes(&token).map_err(|_| unreadable("its token is no header"))?;
                token.set_sensitive(true);
                let listing =
                    ask(client, Method::GET, &format!("{url}{LISTING}"), vec![(TOKEN, token.clone())]).await?;
                let role = std::str::from_utf8(&listing).ok().and_then(|text| text.lines().next()).map(str::trim);
                let sound = |name: &&str| {
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
                    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(plain)
                };
                let role = role.filter(sound).ok_or_else(|| unreadable("the instance has no role"))?;
                read(&ask(client, Method::GET, &format!("{url}{LISTING}{role}"), vec![(TOKEN, token)]).await?)
            }
        }
    }
}

impl ContainerToken {
    async fn value(&self) -> Result<HeaderValue, SourceError> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                let shown = path.display();
                Secret::new(read.map_err(|error| unreadable(&format!("`{shown}` cannot be read: {error}")))?.trim_end())
            }
        };
        let mut value =
            HeaderValue::from_str(text.expose()).map_err(|_| unreadable("the container's token is no header"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn unreadable(detail: &str) -> SourceError {
    SourceError::lasting(SourceError::UNREADABLE, format!("ambient keys: {detail}"))
}

async fn ask(
    client: &OutboundClient,
    method: Method,
    url: &str,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Result<Bytes, SourceError> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Bytes::new()).map_err(|_| unreadable("their address is no URL"))?;
    let answer = send(client, request).await?;
    if answer.status() != StatusCode::OK {
        return Err(SourceError::lasting(
            SourceError::REFUSED,
            format!("ambient keys: `{url}` answered {}", answer.status().as_u16()),
        ));
    }
    Ok(answer.into_body())
}

fn read(body: &[u8]) -> Result<AwsKeys, SourceError> {
    // The parser's own message would quote the answer, keys and all.
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unreadable("the answer holds no keys"))?;
    Ok(AwsKeys {
        access_key_id: answer.access_key_id.into(),
        secret_access_key: answer.secret_access_key,
        session_token: answer.token.filter(|token| !token.expose().is_empty()),
    })
}
