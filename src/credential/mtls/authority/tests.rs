use std::collections::BTreeSet;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::clock::Timestamp;
use crate::credential::testing::{Asked, Caller, now};
use crate::credential::{
    AuthorityError, Credential, CredentialProvider as _, EventUnwritten, Events, IssueEvent, IssuedCache, Outcome,
    PATIENCE, Remote, RemoteSettings,
};
use crate::secret::Secret;
use crate::telemetry::Metrics;

const QUARTER: Duration = Duration::from_secs(900);

struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn authority_with(change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "Doorward upstreams");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut parameters);
    Pair { certificate: parameters.self_signed(&key).unwrap(), key }
}

fn until(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap()
}

fn read(certificates: &str, key: &str) -> Result<CertificateAuthority, AuthorityError> {
    let trial = Leaf { uri: "spiffe://acme.example/x".into(), common_name: Some("x".into()), lifetime: QUARTER };
    CertificateAuthority::from_pem(certificates.as_bytes(), &Secret::new(key), &trial, now())
}

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn settings(pair: &Pair, clock: &Clock) -> MtlsSettings {
    let uri = "spiffe://acme.example/{{environment}}/{{principal.issuer}}/{{principal.subject}}";
    MtlsSettings {
        authority: Arc::new(read(&pair.certificate.pem(), &pair.key.serialize_pem()).unwrap()),
        uri: UriTemplate::new(template(uri)).unwrap(),
        common_name: None,
        lifetime: QUARTER,
        clock: clock.clone(),
    }
}

fn provider(settings: MtlsSettings) -> Remote<MtlsSource> {
    let clock = settings.clock.clone();
    let cache = IssuedCache::new(100, clock.clone());
    let record = |_: &IssueEvent, _: &Outcome<'_>, _| Ok::<_, EventUnwritten>(());
    let events = Events::new(record, Metrics::new().credential("mesh"));
    let remote = RemoteSettings { name: "mesh".into(), lifetime: None, patience: PATIENCE };
    Remote::new(MtlsSource::new(settings), remote, cache, events, clock)
}

async fn issued(provider: &Remote<MtlsSource>, caller: &Caller, clock: &Clock) -> Credential {
    provider.issue(&Asked::of(caller.grant()).at(clock.now())).await.unwrap()
}

fn of(subject: &'static str) -> Caller {
    Caller { subject, ..Caller::default() }
}

#[tokio::test]
async fn a_leaf_is_a_client_certificate_of_minutes_that_verifies_against_its_authority() {
    let (pair, clock) = (authority_with(|_| {}), Clock::system());
    let began = clock.now();
    let credential = issued(&provider(settings(&pair, &clock)), &of("auth0|ada/../x"), &clock).await;
    let identity = credential.proof.identity().unwrap();
    assert_eq!((credential.kind, &credential.id), ("mtls", identity.serial()));
    assert_eq!(credential.id.len(), 32, "128 bits");

    let [leaf, authority] = identity.chain() else { panic!("a leaf and its authority") };
    assert_eq!(authority, pair.certificate.der());
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    verifier.verify_client_cert(leaf, &[], UnixTime::now()).unwrap();

    let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty");
    let [GeneralName::URI(uri)] = names.value.general_names[..] else { panic!("one URI: {names:?}") };
    assert_eq!(uri, "spiffe://acme.example/production/okta/auth0%7Cada%2F..%2Fx");
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.flags.count_ones() == 1);
    let extended = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth && !extended.any && extended.other.is_empty());
    assert!(!parsed.is_ca() && parsed.subject().iter().next().is_none());
    let (begins, ends) = crate::outbound::validity(&parsed);
    assert!(began.since(begins).as_secs().abs_diff(60) <= 1, "backdated by a minute");
    assert!(ends.since(began).as_secs().abs_diff(900) <= 5);
    assert_eq!(credential.expires_at, Some(ends));
}

#[tokio::test]
async fn each_principal_has_one_certificate_that_is_kept_and_renewed() {
    let (pair, clock) = (authority_with(|_| {}), Clock::system());
    let provider = provider(settings(&pair, &clock));
    let first = issued(&provider, &of("ada"), &clock).await;
    assert!(first.fresh);
    let again = issued(&provider, &of("ada"), &clock).await;
    assert_eq!((&again.id, again.fresh), (&first.id, false));
    let other = issued(&provider, &of("bob"), &clock).await;
    let fingerprint = |credential: &Credential| *credential.proof.identity().unwrap().fingerprint();
    assert!(other.id != first.id && fingerprint(&other) != fingerprint(&first));
    clock.advance(QUARTER);
    let renewed = issued(&provider, &of("ada"), &clock).await;
    assert!(renewed.id != first.id && renewed.expires_at > first.expires_at);
}

#[tokio::test]
async fn serial_numbers_read_alike_everywhere_and_never_repeat() {
    let (pair, clock) = (authority_with(|_| {}), Clock::system());
    let authority = settings(&pair, &clock).authority;
    let leaf = Leaf { uri: "spiffe://a/b".into(), common_name: None, lifetime: QUARTER };
    let serials: BTreeSet<_> = (0..64).map(|_| authority.mint(&leaf, now()).unwrap().serial().clone()).collect();
    assert!(serials.len() == 64 && serials.iter().all(|serial| serial.len() == 32), "{serials:?}");
}

#[tokio::test]
async fn a_leaf_never_outlives_its_authority_nor_a_credential_its_grant() {
    let clock = Clock::system();
    let end = now().plus(Duration::from_secs(300));
    let pair = authority_with(|parameters| parameters.not_after = until(end));
    let provider = provider(settings(&pair, &clock));
    assert_eq!(issued(&provider, &of("ada"), &clock).await.expires_at, Some(end));
    let sooner = Some(now().plus(Duration::from_secs(30)));
    let caller = Caller { expires_at: sooner, ..Caller::default() };
    assert_eq!(issued(&provider, &caller, &clock).await.expires_at, sooner);
    clock.advance(Duration::from_secs(301));
    let late = provider.issue(&Asked::of(of("bob").grant()).at(clock.now())).await.unwrap_err();
    assert_eq!(late.code, "signing_failed");
    assert!(late.detail.contains("the certificate authority ended at"), "{}", late.detail);
}

#[tokio::test]
async fn a_common_name_is_for_people_and_must_fit() {
    let (pair, clock) = (authority_with(|_| {}), Clock::system());
    let named = MtlsSettings { common_name: Some(template("{{principal.email}}")), ..settings(&pair, &clock) };
    let provider = provider(named);
    let credential = issued(&provider, &of("ada"), &clock).await;
    let (_, parsed) = X509Certificate::from_der(&credential.proof.identity().unwrap().chain()[0]).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=ada@example.com");
    const LONG: &str = "a-name-that-is-longer-than-what-a-certificate-may-hold@example.com";
    for email in [Some(LONG), Some("a*b"), None] {
        let caller = Caller { email, ..Caller::default() };
        let error = provider.issue(&Asked::of(caller.grant()).at(clock.now())).await.unwrap_err();
        assert!(error.refuses_caller(), "{error}");
    }
}

#[tokio::test]
async fn a_uri_may_name_the_roles_and_then_each_set_has_a_certificate_of_its_own() {
    let (pair, clock) = (authority_with(|_| {}), Clock::system());
    let uri = UriTemplate::new(template("spiffe://acme.example/{{roles}}/{{principal.id}}")).unwrap();
    let provider = provider(MtlsSettings { uri, ..settings(&pair, &clock) });
    let of = |roles: &[&'static str]| Caller { roles: roles.to_vec(), ..Caller::default() };
    let two = issued(&provider, &of(&["reader", "admin"]), &clock).await;
    let same = issued(&provider, &of(&["admin", "reader"]), &clock).await;
    let one = issued(&provider, &of(&["reader"]), &clock).await;
    assert_eq!((&same.id, same.fresh), (&two.id, false));
    assert_ne!(one.id, two.id);
    let asked = Asked::of(of(&["reader", "admin"]).grant());
    let shown = provider.shown(&asked.at(clock.now())).unwrap();
    assert_eq!(shown["uri"], "spiffe://acme.example/admin%2Creader/okta%7Cada");
    assert!(provider.shown(&Asked::of(of(&[]).grant()).at(clock.now())).is_err(), "nobody without a role");
}

#[test]
fn what_is_shown_is_the_name_and_no_key() {
    let (pair, clock) = (authority_with(|_| {}), Clock::system());
    let shown = provider(settings(&pair, &clock)).shown(&Asked::of(of("ada").grant()).at(now())).unwrap();
    assert_eq!(shown["uri"], "spiffe://acme.example/production/okta/ada");
    assert_eq!((&shown["lifetime_seconds"], &shown["common_name"]), (&json!(900), &Value::Null));
    let debug = format!("{:?}", settings(&pair, &clock));
    let secret = pair.key.serialize_pem().lines().nth(1).unwrap().to_owned();
    assert!(!debug.contains(&secret) && !debug.to_lowercase().contains("private"), "{debug}");
}

#[test]
fn an_authority_that_cannot_sign_is_told_by_its_fault() {
    let good = authority_with(|_| {});
    let (pem, key) = (good.certificate.pem(), good.key.serialize_pem());
    let refused = |pair: &Pair| read(&pair.certificate.pem(), &pair.key.serialize_pem()).unwrap_err();
    assert!(read(&pem, &key).is_ok());
    assert_eq!(read("", &key).unwrap_err(), AuthorityError::Certificate);
    assert_eq!(read(&pem, &pem).unwrap_err(), AuthorityError::Key);
    assert_eq!(read(&pem, &authority_with(|_| {}).key.serialize_pem()).unwrap_err(), AuthorityError::Mismatch);
    assert_eq!(refused(&authority_with(|parameters| parameters.is_ca = IsCa::NoCa)), AuthorityError::NoAuthority);
    let usage = |parameters: &mut CertificateParams| parameters.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(refused(&authority_with(usage)), AuthorityError::Usage);
    let ended = |parameters: &mut CertificateParams| parameters.not_after = until(now());
    assert!(matches!(refused(&authority_with(ended)), AuthorityError::Time { .. }));
    let early = |parameters: &mut CertificateParams| parameters.not_before = until(now().plus(Duration::from_secs(60)));
    assert!(matches!(refused(&authority_with(early)), AuthorityError::Time { .. }));
    let stranger = authority_with(|parameters| parameters.distinguished_name.push(DnType::CommonName, "other"));
    assert_eq!(read(&(pem.clone() + &stranger.certificate.pem()), &key).unwrap_err(), AuthorityError::Chain(2));
    let elsewhere = |parameters: &mut CertificateParams| {
        let excluded = vec![rcgen::GeneralSubtree::DirectoryName(rcgen::DistinguishedName::new())];
        let constraints = rcgen::NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees: excluded };
        parameters.name_constraints = Some(constraints);
    };
    assert!(matches!(refused(&authority_with(elsewhere)), AuthorityError::Trial(_)));
    let pem_of_key = read(&pem, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap_err();
    assert_eq!(pem_of_key, AuthorityError::Key);
}

#[test]
fn every_kind_of_key_signs_and_an_intermediate_shows_those_above_it() {
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let made = read(&certificate.pem(), &key.serialize_pem());
        assert!(made.is_ok(), "{algorithm:?}: {made:?}");
    }
    let root = authority_with(|parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let mut root_parameters = CertificateParams::default();
    root_parameters.distinguished_name.push(DnType::CommonName, "Doorward upstreams");
    let issuer = rcgen::Issuer::new(root_parameters, root.key);
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.distinguished_name.push(DnType::CommonName, "below");
    let end = now().plus(Duration::from_secs(120));
    parameters.not_after = until(end);
    let below = parameters.signed_by(&key, &issuer).unwrap();
    let made = read(&(below.pem() + &root.certificate.pem()), &key.serialize_pem()).unwrap();
    let leaf = Leaf { uri: "spiffe://a/b".into(), common_name: None, lifetime: QUARTER };
    let minted = made.mint(&leaf, now()).unwrap();
    assert_eq!((minted.chain().len(), minted.expires_at()), (3, end));
}
