//! Names of headers by which the proxies of the field tell an upstream who calls, from where, and for what. An upstream
//! that once stood behind one of them may believe them still, so none comes from a caller.
//!
//! Prefixes where the vendor's family is open (`X-Amzn-Oidc-Data`, `-Identity`, …), whole names where a prefix would
//! take applications' own headers along (`X-Goog-Api-Key` is a caller's credential for a Google API).

/// Beginnings of names, without the `x-` before them; sorted, and none begins with another.
const X_FAMILIES: [&str; 32] = [
    "amzn-mtls",           // AWS Application Load Balancer
    "amzn-oidc",           // AWS Application Load Balancer
    "apigateway",          // Google API Gateway
    "appengine",           // Google App Engine
    "arr-",                // Azure App Service
    "auth-request",        // oauth2-proxy, ingress-nginx
    "authenticated",       // X-Authenticated-User, -Groups, -UserId: Spring, APISIX, Tyk
    "authentik",           // authentik
    "azure-",              // Azure Front Door
    "client-cert",         // NGINX, Traefik, Azure
    "client-dn",           // Apache, F5
    "client-verify",       // NGINX
    "consumer-",           // Kong
    "doorward",            // Doorward
    "endpoint-api",        // Google Cloud Endpoints
    "envoy",               // Envoy
    "forwarded",           // everybody
    "goog-authenticated",  // Google IAP
    "goog-iap",            // Google IAP
    "ms-client-principal", // Azure App Service
    "ms-token",            // Azure App Service
    "nf-client",           // Netlify
    "original",            // NGINX, Azure, IIS
    "pomerium",            // Pomerium
    "remote-",             // Kubernetes' front proxy: X-Remote-User, -Group, -Extra-…
    "rewrite",             // IIS
    "ssl",                 // HAProxy, NGINX
    "tls-client",          // Kong, NGINX
    "vercel-",             // Vercel
    "vouch",               // Vouch
    "webauth",             // Grafana
    "wso2",                // WSO2
];

/// Beginnings of other names, likewise.
const FAMILIES: [&str; 24] = [
    "cas-user",          // mod_auth_cas
    "cf-access",         // Cloudflare Access
    "cf-connecting",     // Cloudflare
    "client-cert",       // RFC 9440
    "client-ip",         // whoever asks for the old name
    "cloudfront-viewer", // Amazon CloudFront
    "do-connecting",     // DigitalOcean
    "fly-client",        // Fly.io
    "impersonate",       // Kubernetes' API server
    "incap-client",      // Imperva
    "iv-",               // IBM WebSEAL: iv-user, -groups, -creds
    "mellon-",           // mod_auth_mellon
    "ngrok-auth",        // ngrok
    "oam-remote",        // Oracle Access Manager
    "oidc-",             // mod_auth_openidc
    "remote-",           // CGI: Remote-User, -Groups, -Email, -Name, -Addr
    "shib-",             // Shibboleth
    "sm-user",           // SiteMinder
    "smuser",            // SiteMinder
    "ssl-client",        // Apache, ingress-nginx
    "tailscale-user",    // Tailscale Serve
    "teleport-jwt",      // Teleport
    "true-client",       // Akamai
    "wl-proxy",          // WebLogic
];

/// Whether `normal`, a name in normal form, tells an upstream what Doorward alone may tell it.
pub(super) fn is_spoofable(normal: &str) -> bool {
    if let Some(rest) = normal.strip_prefix("x-") {
        return is_of(&X_FAMILIES, rest) || is_spoofable_x(rest);
    }
    matches!(normal, "forwarded" | "traceparent" | "front-end-https" | "fastly-client-ip" | "eppn")
        || is_of(&FAMILIES, normal)
}

/// Whether `name` begins with one of `families`: if any, then with the last one that sorts before it.
fn is_of(families: &[&str], name: &str) -> bool {
    let after = families.partition_point(|family| *family <= name);
    after.checked_sub(1).and_then(|last| families.get(last)).is_some_and(|family| name.starts_with(family))
}

/// Whole names, without the `x-` before them.
fn is_spoofable_x(rest: &str) -> bool {
    matches!(
        rest,
        "anonymous-consumer"
            | "auth-email"
            | "auth-groups"
            | "auth-roles"
            | "auth-subject"
            | "auth-user"
            | "auth-username"
            | "client-ip"
            | "clientip"
            | "cluster-client-ip"
            | "credential-identifier"
            | "email"
            | "groups"
            | "host"
            | "http-method"
            | "http-method-override"
            | "jwt-assertion"
            | "jwt-payload"
            | "method-override"
            | "originating-ip"
            | "real-ip"
            | "remoteuser"
            | "request-id"
            | "roles"
            | "scheme"
            | "url-scheme"
            | "user"
            | "user-email"
            | "user-groups"
            | "user-id"
            | "user-name"
            | "user-roles"
            | "userinfo"
            | "username"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_and_none_hides_another() {
        for families in [&X_FAMILIES[..], &FAMILIES] {
            assert!(families.is_sorted_by(|one, next| one < next && !next.starts_with(one)), "{families:?}");
        }
    }

    #[test]
    fn the_names_of_other_proxies_are_spoofable_and_applications_own_are_not() {
        for name in [
            "cf-access-authenticated-user-email",
            "cf-access-jwt-assertion",
            "cf-connecting-ip",
            "client-cert",
            "client-cert-chain",
            "forwarded",
            "front-end-https",
            "impersonate-extra-scopes",
            "impersonate-user",
            "oidc-claim-sub",
            "remote-groups",
            "remote-user",
            "ssl-client-s-dn",
            "tailscale-user-login",
            "true-client-ip",
            "wl-proxy-client-ip",
            "wl-proxy-ssl",
            "x-amzn-oidc-data",
            "x-auth-request-access-token",
            "x-auth-request-user",
            "x-authenticated-user",
            "x-authenticated-userid",
            "x-authentik-username",
            "x-client-cert",
            "x-client-dn",
            "x-client-verify",
            "x-consumer-username",
            "x-doorward-subject",
            "x-envoy-original-path",
            "x-forwarded",
            "x-forwarded-client-cert",
            "x-forwarded-uri",
            "x-goog-authenticated-user-email",
            "x-goog-iap-jwt-assertion",
            "x-host",
            "x-http-method-override",
            "x-ms-client-principal-name",
            "x-original-url",
            "x-pomerium-jwt-assertion",
            "x-remote-group",
            "x-rewrite-url",
            "x-scheme",
            "x-ssl-cert",
            "x-ssl-client-cert",
            "x-tls-client-cert",
            "x-user",
            "x-username",
            "x-webauth-user",
        ] {
            assert!(is_spoofable(name), "{name}");
        }
        for name in [
            "accept",
            "origin",
            "remoteness",
            "user-agent",
            "x-amz-date",
            "x-amzn-trace-id",
            "x-api-key",
            "x-auth-token",
            "x-consumers-guide",
            "x-csrf-token",
            "x-goog-api-key",
            "x-requested-with",
            "x-user-agent",
        ] {
            assert!(!is_spoofable(name), "{name}");
        }
    }
}
