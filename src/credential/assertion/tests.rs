use http_body_util::BodyExt;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::credential::Documents;
use crate::credential::testing::{Asked, Caller, MONTH, now};

const ISSUER: &str = "https://api.example.com/.doorward";
const AUDIENCE: &str = "https://billing.internal";

struct World {
    _state: TempDir,
    keys: Arc<SigningKeys>,
    cache: AssertionCache,
}

impl World {
    fn new(algorithm: Algorithm) -> Self {
        let state = tempfile::tempdir().unwrap();
        let keys = Arc::new(SigningKeys::open(state.path(), MONTH).unwrap());
        keys.ensure(algorithm, now()).unwrap();
        Self { _state: state, keys, cache: AssertionCache::new(1 << 20) }
    }

    fn provider(&self, change: impl FnOnce(&mut AssertionSettings)) -> Result<SignedAssertion, SettingsError> {
        let mut settings = AssertionSettings {
            name: "assertion".into(),
            issuer: ISSUER.into(),
            audience: AUDIENCE.into(),
            algorithm: Algorithm::Es256,
            lifetime: LONGEST_LIFETIME,
            header: AUTHORIZATION,
        };
        change(&mut settings);
        SignedAssertion::new(settings, self.keys.clone(), self.cache.clone())
    }

    async fn document(&self, path: &str) -> Value {
        let answer = Documents::new(ISSUER, self.keys.clone()).answer(path).unwrap();
        assert_eq!(answer.headers()["cache-control"], "public, max-age=300");
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    /// What an upstream does: discovery, key set, signature, issuer, audience, times.
    async fn verified(&self, credential: &Credential) -> Value {
        let discovery = self.document("/.well-known/openid-configuration").await;
        let place = discovery["jwks_uri"].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();
        let keys: JwkSet = serde_json::from_value(self.document(&place).await).unwrap();
        let [(_, value)] = &credential.proof.headers()[..] else { panic!("one header") };
        let token = value.to_str().unwrap().trim_start_matches("Bearer ");
        let header = decode_header(token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("doorward-assertion+jwt"));
        let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
        let supported = discovery["id_token_signing_alg_values_supported"].as_array().unwrap();
        assert!(supported.contains(&format!("{:?}", header.alg).into()));
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_nbf = true;
        validation.leeway = 0;
        decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
    }
}

async fn issue(provider: &SignedAssertion, caller: &Caller, now: Timestamp) -> Credential {
    provider.issue(&Asked::of(caller.grant()).at(now)).await.unwrap()
}

async fn refused(provider: &SignedAssertion, caller: &Caller, now: Timestamp) -> &'static str {
    provider.issue(&Asked::of(caller.grant()).at(now)).await.unwrap_err().code
}

#[tokio::test]
async fn an_upstream_verifies_an_assertion_with_the_published_keys() {
    let (world, start) = (World::new(Algorithm::Es256), now());
    let provider = world.provider(|_| {}).unwrap();
    let credential = issue(&provider, &Caller::default(), start).await;
    let claims = world.verified(&credential).await;
    let expected = json!({
        "iss": ISSUER,
        "sub": "okta|ada",
        "aud": AUDIENCE,
        "iat": start.unix_seconds(),
        "nbf": start.unix_seconds(),
        "exp": start.unix_seconds() + 300,
        "jti": &*credential.id,
        "kind": "User",
        "roles": ["billing-admin", "reader"],
        "email": "ada@example.com",
        "groups": ["finance", "Staff, all"],
    });
    assert_eq!(claims, expected);
    assert_eq!(credential.expires_at, Some(start.plus(LONGEST_LIFETIME)));
    let [(name, value)] = &credential.proof.headers()[..] else { panic!("one header") };
    assert!(*name == AUTHORIZATION && value.is_sensitive() && credential.fresh);
    assert!(!format!("{credential:?}").contains("ey"));
}

#[tokio::test]
async fn rs256_works_too_and_another_header_carries_the_bare_token() {
    let world = World::new(Algorithm::Rs256);
    let header = HeaderName::from_static("x-assertion");
    let provider = world.provider(|settings| {
        settings.algorithm = Algorithm::Rs256;
        settings.header = header.clone();
    });
    let provider = provider.unwrap();
    let credential = issue(&provider, &Caller::default(), now()).await;
    assert_eq!(world.verified(&credential).await["sub"], "okta|ada");
    assert!(credential.proof.headers()[0].1.to_str().unwrap().starts_with("ey"));
    assert_eq!(provider.headers(), [header]);
}

#[tokio::test]
async fn an_assertion_is_used_again_until_shortly_before_it_ends() {
    let (world, start) = (World::new(Algorithm::Es256), now());
    let (provider, caller) = (world.provider(|_| {}).unwrap(), Caller::default());
    let first = issue(&provider, &caller, start).await;
    let again = issue(&provider, &caller, start.plus(Duration::from_secs(269))).await;
    assert_eq!((&first.id, first.fresh, again.fresh), (&again.id, true, false));
    assert!(again.expires_at.unwrap() > start.plus(Duration::from_secs(269)));
    let later = issue(&provider, &caller, start.plus(Duration::from_secs(270))).await;
    assert_ne!(first.id, later.id);
    let reloaded = world.provider(|_| {}).unwrap();
    assert_eq!(issue(&reloaded, &caller, start.plus(Duration::from_secs(271))).await.id, later.id);
    let set_back = issue(&provider, &caller, start).await;
    assert_eq!(set_back.expires_at, Some(start.plus(LONGEST_LIFETIME)), "a clock that was set back");
}

#[tokio::test]
async fn what_changes_the_claims_changes_the_assertion() {
    let (world, start) = (World::new(Algorithm::Es256), now());
    let (provider, caller) = (world.provider(|_| {}).unwrap(), Caller::default());
    let mut ids = vec![issue(&provider, &caller, start).await.id];
    let others = [
        Caller { roles: vec!["reader"], ..caller.clone() },
        Caller { fingerprint: 2, groups: Vec::new(), ..caller.clone() },
        Caller { subject: "bob", ..caller.clone() },
    ];
    for other in &others {
        ids.push(issue(&provider, other, start).await.id);
    }
    let audience = world.provider(|settings| settings.audience = "https://other.internal".into()).unwrap();
    ids.push(issue(&audience, &caller, start).await.id);
    let total = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), total);
}

#[tokio::test]
async fn an_assertion_never_outlives_its_grant() {
    let (world, start) = (World::new(Algorithm::Es256), now());
    let provider = world.provider(|_| {}).unwrap();
    let long = issue(&provider, &Caller::default(), start).await;
    let ends = start.plus(Duration::from_millis(100_900));
    let bounded = Caller { expires_at: Some(ends), ..Caller::default() };
    let short = issue(&provider, &bounded, start).await;
    assert_ne!(long.id, short.id);
    assert_eq!(short.expires_at, Some(start.plus(Duration::from_secs(100))));
    assert_eq!(world.verified(&short).await["exp"], start.unix_seconds() + 100);
    // A fifth of a life of 100 s ahead.
    assert_eq!(issue(&provider, &bounded, start.plus(Duration::from_secs(79))).await.id, short.id);
    assert_ne!(issue(&provider, &bounded, start.plus(Duration::from_secs(80))).await.id, short.id);
    assert_eq!(refused(&provider, &bounded, start.plus(Duration::from_millis(100_100))).await, "grant_expired");
    assert_eq!(refused(&provider, &bounded, ends).await, "grant_expired");
}

#[tokio::test]
async fn an_assertion_never_outlives_a_role_that_it_names() {
    let world = World::new(Algorithm::Es256);
    let (provider, start) = (world.provider(|_| ()).unwrap(), now());
    let role_end = start.plus(Duration::from_secs(40));
    let caller = Caller { roles_end_at: Some(role_end), ..Caller::default() };
    let claims = world.verified(&issue(&provider, &caller, start).await).await;
    assert_eq!(claims["exp"], role_end.unix_seconds());
    // A longer-lived assertion of the same roles is not handed out either.
    let longer = Caller { roles_end_at: None, fingerprint: 2, ..Caller::default() };
    let long = issue(&provider, &longer, start).await;
    let shorter = Caller { roles_end_at: Some(role_end), ..longer };
    assert_ne!(issue(&provider, &shorter, start).await.id, long.id);

    // In its last second the role is left out rather than the request refused.
    let ending = Caller { roles_end_at: Some(start.plus(Duration::from_millis(500))), ..Caller::default() };
    let claims = world.verified(&issue(&provider, &ending, start).await).await;
    assert_eq!((claims["roles"].as_array().unwrap().len(), &claims["exp"]), (0, &(start.unix_seconds() + 300).into()));
}

#[tokio::test]
async fn many_requests_at_once_share_one_signature() {
    let (world, start) = (World::new(Algorithm::Rs256), now());
    let provider = Arc::new(world.provider(|settings| settings.algorithm = Algorithm::Rs256).unwrap());
    let requests = (0..20).map(|_| {
        let provider = provider.clone();
        tokio::spawn(async move { issue(&provider, &Caller::default(), start).await })
    });
    let answers: Vec<_> = futures_util::future::join_all(requests).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|credential| credential.fresh).count(), 1);
    assert!(answers.iter().all(|credential| credential.id == answers[0].id));
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_does_not_come_is_waited_for_until_the_deadline() {
    let world = World::new(Algorithm::Es256);
    let (provider, caller, start) = (world.provider(|_| ()).unwrap(), Caller::default(), now());
    let grant = caller.grant();
    let key = super::Caller { profile: provider.profile, grant: &grant }.key();
    // Somebody else is at it, and never done.
    let Err(_hanging) = world.cache.entries().get_value_or_guard_async(&key).await else { panic!("nothing is there") };
    let began = tokio::time::Instant::now();
    assert_eq!(refused(&provider, &caller, start).await, "signing_timeout");
    assert_eq!(began.elapsed().as_secs(), DEADLINE.as_secs());
}

#[tokio::test]
async fn too_many_groups_or_claims_are_refused_rather_than_cut() {
    let world = World::new(Algorithm::Es256);
    let provider = world.provider(|_| {}).unwrap();
    let groups = |count: usize, name: &str| (0..count).map(|_| name.to_owned()).collect();
    let many = Caller { groups: groups(MOST_GROUPS + 1, "g"), ..Caller::default() };
    let large = Caller { groups: groups(50, &"g".repeat(100)), ..Caller::default() };
    assert_eq!(refused(&provider, &many, now()).await, "principal_too_large");
    assert_eq!(refused(&provider, &large, now()).await, "principal_too_large");
    let most = Caller { groups: groups(MOST_GROUPS, "g"), ..Caller::default() };
    issue(&provider, &most, now()).await;
}

#[tokio::test]
async fn a_rotated_key_signs_from_then_on_and_what_the_old_one_signed_still_verifies() {
    let (world, start) = (World::new(Algorithm::Es256), now());
    let provider = world.provider(|_| {}).unwrap();
    let turned = start.plus(MONTH * 2);
    world.keys.rotate_if_due(turned.minus(MONTH)).unwrap();
    let before = issue(&provider, &Caller::default(), turned).await;
    world.keys.rotate_if_due(turned).unwrap();
    let after = issue(&provider, &Caller::default(), turned).await;
    assert_ne!(before.id, after.id);
    world.verified_far_ahead(&before).await;
    world.verified_far_ahead(&after).await;
}

impl World {
    /// As `verified`, but times are not looked at.
    async fn verified_far_ahead(&self, credential: &Credential) {
        let keys: JwkSet = serde_json::from_value(self.document("/jwks.json").await).unwrap();
        let headers = credential.proof.headers();
        let token = headers[0].1.to_str().unwrap().trim_start_matches("Bearer ");
        let header = decode_header(token).unwrap();
        let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_exp = false;
        decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap();
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_issued() {
    let world = World::new(Algorithm::Es256);
    let provider = world.provider(|settings| settings.algorithm = Algorithm::Rs256).unwrap();
    assert_eq!(refused(&provider, &Caller::default(), now()).await, "signing_key_missing");
}

#[test]
fn a_lifetime_over_five_minutes_or_a_nameless_audience_is_refused() {
    let world = World::new(Algorithm::Es256);
    let long = world.provider(|settings| settings.lifetime = LONGEST_LIFETIME + Duration::from_secs(1)).unwrap_err();
    assert!(matches!(long, SettingsError::Lifetime { .. }));
    let nameless = world.provider(|settings| settings.audience = "".into()).unwrap_err();
    assert_eq!(nameless, SettingsError::Unnamed);
    let framing = world.provider(|settings| settings.header = http::header::HOST).unwrap_err();
    assert_eq!(framing, SettingsError::Header { header: http::header::HOST });
}

#[test]
fn only_the_two_documents_are_ours() {
    let documents = Documents::new(ISSUER, World::new(Algorithm::Es256).keys);
    for path in ["", "/", "/jwks.json/", "/.well-known/jwks.json", "/.well-known/openid-configuration?x"] {
        assert!(documents.answer(path).is_none(), "{path}");
    }
}
