//! Every way in which a secret can be no secret: the start is refused.

use tokio::process::Command;

use crate::harness::process::{HOOKWARD, TestFile, complete};

const GOOD: &str = "a-good-secret-of-some-length";

/// The `secrets` of a route for GitHub, whose key is the text itself.
const OF_TEXT: [&str; 46] = [
    "",
    "secrets: []",
    "secrets: ~",
    "secrets: \"\"",
    "secrets: {}",
    "secrets: [{}]",
    "secrets: [~]",
    "secrets: [{ id: only }]",
    r#"secrets: [{ value: "" }]"#,
    r#"secrets: [{ value: " " }]"#,
    r#"secrets: [{ value: "\n" }]"#,
    r#"secrets: [{ value: "\t \r\n" }]"#,
    r#"secrets: [{ value: "\0" }]"#,
    r#"secrets: [{ value: "\u00a0" }]"#,
    r#"secrets: [{ value: "\u200b" }]"#,
    "secrets: [{ value: ~ }]",
    "secrets: [{ value: short }]",
    "secrets: [{ value: fifteen-bytes-x }]",
    "secrets: [{ env: UNSET }]",
    "secrets: [{ env: EMPTY }]",
    "secrets: [{ env: BLANK }]",
    "secrets: [{ env: SHORT }]",
    "secrets: [{ env: PLACEHOLDER }]",
    r#"secrets: [{ env: "" }]"#,
    "secrets: [{ env: ~ }]",
    "secrets: [{ file: FOLDER/absent }]",
    "secrets: [{ file: FOLDER/empty }]",
    "secrets: [{ file: FOLDER/blank }]",
    "secrets: [{ file: FOLDER/short }]",
    "secrets: [{ file: FOLDER }]",
    "secrets: [{ file: /dev/null }]",
    r#"secrets: [{ file: "" }]"#,
    r#"secrets: [{ value: "${GITHUB_WEBHOOK_SECRET}" }]"#,
    r#"secrets: [{ value: "$GITHUB_WEBHOOK_SECRET" }]"#,
    r#"secrets: [{ value: "%GITHUB_WEBHOOK_SECRET%" }]"#,
    r#"secrets: [{ value: "{{ .Values.githubSecret }}" }]"#,
    r#"secrets: [{ value: GOOD }, { value: "" }]"#,
    "secrets: [{ value: GOOD }, { env: UNSET }]",
    "secrets: [{ value: GOOD }, { file: FOLDER/empty }]",
    "secrets: [{ value: GOOD }, { value: short }]",
    "secrets: [{ value: GOOD }, {}]",
    "secrets: [{ value: GOOD }, ~]",
    r#"secrets: [{ value: "" }, { value: GOOD }]"#,
    "secrets: [{ env: UNSET, value: GOOD }]",
    "secrets: [{ value: GOOD, until: 2020-01-01T00:00:00Z }]",
    "secrets: GOOD",
];

/// Texts that other schemes make nothing of, or too little.
const OF_OTHERS: [(&str, &str); 26] = [
    ("standard-webhooks", "whsec_"),
    ("standard-webhooks", "whsec_ "),
    ("standard-webhooks", "v1,whsec_"),
    ("standard-webhooks", "v1,"),
    ("standard-webhooks", "whsec_===="),
    ("standard-webhooks", "whsec_AAAA"),
    ("standard-webhooks", "whsec_YWFhYWFhYWFhYWFhYWFh"),
    ("standard-webhooks", "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"),
    ("standard-webhooks", "whsec_not base64 at all here!!"),
    ("adyen-header", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
    ("adyen-header", "00112233445566778899aabbccddeef"),
    ("adyen-header", "0011"),
    ("adyen-header", "0"),
    ("airtable", "===="),
    ("airtable", "AAAA"),
    ("airtable", "a-secret-that-is-no-base64"),
    ("postmark", ":"),
    ("postmark", "user:"),
    ("postmark", "user: "),
    ("postmark", "no-colon-in-this-secret"),
    ("wise", "-----BEGIN PUBLIC KEY-----\\n-----END PUBLIC KEY-----\\n"),
    ("wise", "not a key of any kind"),
    (
        "discord",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    ("discord", "00"),
    ("fal-ai", "{}"),
    ("plaid", "{}"),
];

/// What a handshake is answered under.
const OF_HANDSHAKES: [&str; 5] = [
    "",
    r#"settings: { verify_token: "" }"#,
    "settings: { verify_token: { env: UNSET } }",
    "settings: { verify_token: { env: EMPTY } }",
    "settings: { verify_token: { file: FOLDER/empty } }",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_none_stops_the_start() {
    // With a key that came out empty anybody can sign: the worst holes that verifiers had were this one.
    let empty = TestFile::new("empty", "");
    std::fs::write(empty.beside("blank"), " \n\n").unwrap();
    std::fs::write(empty.beside("short"), "short").unwrap();
    let folder = empty.path().parent().unwrap().to_str().unwrap();
    let github = OF_TEXT.map(|keys| format!("provider: github, {keys}"));
    let others = OF_OTHERS.map(|(provider, text)| format!("provider: {provider}, secrets: [{{ value: '{text}' }}]"));
    let meta = OF_HANDSHAKES.map(|keys| format!("provider: meta, secrets: [{{ value: GOOD }}], {keys}"));
    let nothing = ["secrets: [{ value: GOOD }]".to_owned(), String::new()];
    let mut started = Vec::new();
    for route in github.iter().chain(&others).chain(&meta).chain(&nothing) {
        let route = route.replace("GOOD", GOOD).replace("FOLDER", folder);
        let yaml = format!(
            "listen: [127.0.0.1:1]\nupstreams: {{ app: {{ servers: [127.0.0.1:2] }} }}\n\
             routes:\n  - {{ name: r, path: /in, upstream: app, {route} }}\n"
        );
        let file = TestFile::new("hookward.yaml", yaml);
        let mut command = Command::new(HOOKWARD);
        command.args(["check", file.name()]);
        command.envs([
            ("EMPTY", ""),
            ("BLANK", " \n"),
            ("SHORT", "short"),
            ("PLACEHOLDER", "${X}"),
        ]);
        let ended = complete(command, b"").await;
        if ended.code != Some(78) {
            started.push(format!("{route}: {}", ended.stdout));
        }
    }
    assert!(started.is_empty(), "{started:#?}");
}
