use super::*;
use crate::clock::Clock;
use crate::credential::AwsKeys;
use crate::credential::testing::{Asked, Caller, Change, assert_all_differ, key};
use crate::outbound::{OutboundClient, OutboundSettings};

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn by_doorward(issuer: &str, audience: &str, subject: &str) -> RoleProof {
    RoleProof::Doorward {
        tokens: SubjectTokens::unsigned(issuer.into(), Clock::system()),
        audience: audience.into(),
        subject: template(subject),
    }
}

fn ambient(external_id: Option<&str>) -> RoleProof {
    let keys = AmbientKeys::Environment(AwsKeys {
        access_key_id: "AKIA".into(),
        secret_access_key: Secret::new("none".to_owned()),
        session_token: None,
    });
    RoleProof::Ambient { keys: Box::new(keys), external_id: external_id.map(str::to_owned) }
}

fn policy(action: &str, resource: &str) -> SessionPolicy {
    let (actions, resources) = (vec![action.to_owned()], vec![template(resource)]);
    SessionPolicy(vec![PolicyStatement { actions, resources, conditions: BTreeMap::new() }])
}

fn settings() -> AwsSettings {
    AwsSettings {
        sts: Sts {
            url: "https://sts.test/".into(),
            region: "eu-central-1".into(),
            client: OutboundClient::new(&OutboundSettings::default()).unwrap(),
            clock: Clock::system(),
        },
        role: "arn:aws:iam::123456789012:role/a".into(),
        proof: by_doorward("https://gate.test", "sts", "{{route}}"),
        duration: Duration::from_secs(900),
        session_name: template("{{principal.id}}"),
        source_identity: None,
        tags: BTreeMap::new(),
        transitive_tags: Vec::new(),
        policy: Some(policy("s3:GetObject", "arn:aws:s3:::b/{{principal.email}}")),
        policy_arns: Vec::new(),
        services: ["s3".into()].into(),
        regions: ["eu-central-1".into()].into(),
        widening_headers: false,
        signed_body_bytes: 1,
        memory: BodyMemory::default(),
    }
}

#[test]
fn whatever_narrows_or_names_a_session_makes_it_another() {
    let asked = |caller: Caller| Asked::of(caller.grant());
    let usual = asked(Caller::default());
    let mut keys = vec![
        ("nothing", key(&AwsSource::new(settings()), &usual)),
        ("caller", key(&AwsSource::new(settings()), &asked(Caller { subject: "bob", ..Caller::default() }))),
        ("value", key(&AwsSource::new(settings()), &asked(Caller { email: Some("eve@test"), ..Caller::default() }))),
    ];
    assert_eq!(keys[0].1, key(&AwsSource::new(settings()), &asked(Caller { fingerprint: 2, ..Caller::default() })));
    let tags = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), template(value))]);
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Arc<[Arc<str>]>>();
    let changes: Vec<(&str, Change<AwsSettings>)> = vec![
        ("endpoint", Box::new(|with| with.sts.url = "https://sts.other/".into())),
        ("role", Box::new(|with| with.role = "arn:aws:iam::123456789012:role/b".into())),
        ("issuer", Box::new(|with| with.proof = by_doorward("https://other.test", "sts", "{{route}}"))),
        ("audience", Box::new(|with| with.proof = by_doorward("https://gate.test", "other", "{{route}}"))),
        ("subject", Box::new(|with| with.proof = by_doorward("https://gate.test", "sts", "x:{{route}}"))),
        ("ambient", Box::new(|with| with.proof = ambient(None))),
        ("external id", Box::new(|with| with.proof = ambient(Some("x")))),
        ("another external id", Box::new(|with| with.proof = ambient(Some("y")))),
        ("duration", Box::new(|with| with.duration = Duration::from_secs(901))),
        ("session name", Box::new(|with| with.session_name = template("x-{{principal.id}}"))),
        ("source identity", Box::new(|with| with.source_identity = Some(template("{{principal.subject}}")))),
        ("another source identity", Box::new(|with| with.source_identity = Some(template("{{route}}")))),
        ("tag", Box::new(move |with| with.tags = tags("team", "red"))),
        ("another tag", Box::new(move |with| with.tags = tags("cost", "red"))),
        ("a tag's value", Box::new(move |with| with.tags = tags("team", "{{principal.subject}}"))),
        (
            "transitive tag",
            Box::new(move |with| {
                with.tags = tags("team", "red");
                with.transitive_tags = vec!["team".to_owned()];
            }),
        ),
        ("no policy", Box::new(|with| with.policy = None)),
        ("action", Box::new(|with| with.policy = Some(policy("s3:PutObject", "arn:aws:s3:::b/{{principal.email}}")))),
        ("resource", Box::new(|with| with.policy = Some(policy("s3:GetObject", "arn:aws:s3:::c/{{principal.email}}")))),
        ("managed policy", Box::new(|with| with.policy_arns = vec!["arn:aws:iam::aws:policy/A".to_owned()])),
        ("another managed policy", Box::new(|with| with.policy_arns = vec!["arn:aws:iam::aws:policy/B".to_owned()])),
        ("service", Box::new(move |with| with.services = names(&["sqs"]))),
        ("region", Box::new(move |with| with.regions = names(&["eu-west-1"]))),
        ("further region", Box::new(move |with| with.regions = names(&["eu-central-1", "eu-west-1"]))),
        ("widening headers", Box::new(|with| with.widening_headers = true)),
        ("signed body", Box::new(|with| with.signed_body_bytes = 2)),
    ];
    for (what, change) in changes {
        let mut changed = settings();
        change(&mut changed);
        keys.push((what, key(&AwsSource::new(changed), &usual)));
    }
    for token in ["a.b.c", "a.b.d"] {
        let source = AwsSource::new(AwsSettings { proof: RoleProof::Caller, ..settings() });
        let mut asked = asked(Caller::default());
        asked.token = Some(token.to_owned());
        keys.push((token, key(&source, &asked)));
    }
    assert_all_differ(&keys);
}
