//! The command line of AWS, which asks `doorward creds process` for what it signs with.

use std::fs;

use serde_json::json;
use tokio::process::Command;

use super::World;
use crate::support::{now, peer_file};

#[tokio::test]
async fn the_command_line_of_aws_renews_its_token_by_itself() {
    let world = World::start(|gate, _, _| gate).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let doorward = env!("CARGO_BIN_EXE_doorward");
    fs::write(
        file("config"),
        format!(
            "[default]\nregion = us-east-1\nendpoint_url = https://127.0.0.1:{}\ns3 =\n  addressing_style = path\n\
             request_checksum_calculation = when_required\nresponse_checksum_validation = when_required\n\
             credential_process = {doorward} creds process --token {}\n",
            world.gate.port(),
            file("token.jwt").display()
        ),
    )
    .unwrap();
    fs::write(file("report.csv"), "a,b\n1,2\n").unwrap();
    let aws = async |arguments: &[&str]| {
        let mut command = Command::new(peer_file("python/bin/aws"));
        command.args(arguments).current_dir(folder.path()).env_clear().kill_on_drop(true);
        command.env("AWS_CONFIG_FILE", file("config")).env("AWS_CA_BUNDLE", world.authority.folder().join("ca.pem"));
        command.env("PATH", "/usr/bin:/bin").env("HOME", folder.path());
        let output = command.output().await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };

    fs::write(file("token.jwt"), world.issuer.token().claim("exp", now() - 5).mint()).unwrap();
    let (worked, said) = aws(&["s3api", "create-bucket", "--bucket", "reports"]).await;
    assert!(!worked && said.contains("ended at"), "{said}");

    fs::write(file("token.jwt"), world.issuer.token().mint()).unwrap();
    let (folder_there, there) =
        (format!("s3://{}/2026/", world.bucket), format!("s3://{}/2026/report one.csv", world.bucket));
    for arguments in [
        &["s3api", "create-bucket", "--bucket", &world.bucket][..],
        &["s3", "cp", "report.csv", &there],
        &["s3", "cp", &there, "copy.csv"],
        &["s3", "ls", &folder_there],
    ] {
        let (worked, said) = aws(arguments).await;
        assert!(worked, "{arguments:?}: {said}");
    }
    assert_eq!(fs::read_to_string(file("copy.csv")).unwrap(), "a,b\n1,2\n");
    let sessions = world.gate.settled_audit().await;
    let sessions: Vec<_> = sessions.iter().filter(|record| record.event() == "credential.issued").collect();
    assert_eq!(sessions.len(), 2, "one caller, one session for objects and one for the bucket");
    assert_eq!(sessions[0].value("roles"), &json!(["reader"]));
}
