//! The demo's upstream: a small billing API and a page, which show what reached them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

// Values are escaped because the name ends in `.html`.
const PAGE_NAME: &str = "home.html";
const PAGE: &str = include_str!("pages/home.html");

/// Serves the sample API until the future is dropped.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let mut pages = minijinja::Environment::new();
    pages.add_template(PAGE_NAME, PAGE).map_err(std::io::Error::other)?;
    let routes = Router::new()
        .route("/", get(home))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/whoami", get(whoami))
        .route("/billing/invoices", get(invoices).post(new_invoice))
        .with_state(Arc::new(pages));
    axum::serve(listener, routes).await
}

async fn home(State(pages): State<Arc<minijinja::Environment<'static>>>, headers: HeaderMap) -> Response {
    let claims = assertion(&headers).unwrap_or_default();
    let pretty = serde_json::to_string_pretty(&claims).unwrap_or_default();
    let value = json!({
        "subject": claims.get("sub"),
        "email": claims.get("email"),
        "roles": claims.get("roles"),
        "assertion": pretty,
    });
    match pages.get_template(PAGE_NAME).and_then(|page| page.render(minijinja::value::Serde(value))) {
        Ok(html) => ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Everything that reached the API: its view of the caller.
async fn whoami(request: Request) -> Json<Value> {
    let headers = request.headers();
    let mut seen = Map::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // The credential is shown decoded below; its signature is nobody's to copy.
        let text = if name == header::AUTHORIZATION { "Bearer … (see `assertion`)".to_owned() } else { text };
        seen.insert(name.to_string(), text.into());
    }
    let assertion = assertion(headers).map_or(Value::Null, Value::Object);
    Json(
        json!({ "method": request.method().as_str(), "path": request.uri().path(), "headers": seen, "assertion": assertion }),
    )
}

async fn invoices() -> Json<Value> {
    Json(json!({ "invoices": [
        { "id": "2026-0001", "customer": "Acme", "amount": "1200.00" },
        { "id": "2026-0002", "customer": "Globex", "amount": "80.50" },
    ] }))
}

async fn new_invoice(headers: HeaderMap) -> Response {
    let by = assertion(&headers).and_then(|claims| claims.get("sub").cloned());
    (StatusCode::CREATED, Json(json!({ "created": true, "by": by }))).into_response()
}

/// The claims of the injected assertion, as the API saw them. A real API verifies the signature with the key set
/// at `/.doorward/jwks.json`; this one only shows.
fn assertion(headers: &HeaderMap) -> Option<Map<String, Value>> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}
