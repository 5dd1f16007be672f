//! Routes that wait for their secret: believed is the first who brings one, once, and only while the operator says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hookward::config::plan_text;

use super::{Asking, Question, SIGNED};
use crate::harness::{Answer, Client, Gateway, NOW, SECRET, Upstream};

const BROUGHT: &str = "b537207f20cbfa02357cf448134da559";

const ASANA: &str = "handshake: [{ when: { header: X-Hook-Secret, present: true }, register: { header: X-Hook-Secret }, \
                     answer: { headers: { X-Hook-Secret: \"{header:X-Hook-Secret}\" } } }, \
                     { when: { json: verification_token, present: true }, register: { json: verification_token }, \
                     answer: { empty: true } }]";

/// A folder of one test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "hookward-register-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::SeqCst)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("secret")
    }

    /// A configuration that waits ten minutes; `secrets` are more of them, `more` are further keys of the route.
    fn conf(&self, upstream: &Upstream, secrets: &str, register: &str) -> String {
        let file = self.file().display().to_string();
        let route = "name: asana, path: /webhooks/asana, upstream: app, scheme: asana";
        format!(
            "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
             schemes:\n  asana: {{ {SIGNED}, {ASANA} }}\n\
             upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             routes:\n  - {{ {route}, secrets: [{secrets}{{ file: \"{file}\", id: brought }}], {register} }}\n",
            upstream.address
        )
        .replace("INTO", &file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ARMED: &str = "register: { until: 2023-11-14T22:23:20Z, into: \"INTO\" }";

fn knock(secret: &str) -> Question {
    Question::post("{}").with("X-Hook-Secret", secret)
}

fn event(id: u32) -> Question {
    Question::post(&format!("{{\"id\":{id}}}"))
}

fn refused(answer: &Answer) -> bool {
    (answer.status, answer.text()) == (401, "unauthorized\n") && answer.header("x-hook-secret").is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_that_is_brought_is_on_disk_and_in_force_when_it_is_answered() {
    // The provider signs the next request with it, and a restart must not forget it.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = folder.conf(&upstream, "", ARMED);
    let gateway = Gateway::start(&conf).await;
    let early = event(1).signed_with(BROUGHT).ask(gateway.address, "asana").await;
    assert!(refused(&early));
    assert_eq!(gateway.lines(1).await[0]["reason"], "unknown_key");
    // Nor does the key that stands in for it open anything.
    let guess = event(1)
        .signed_with(&"0".repeat(64))
        .ask(gateway.address, "asana")
        .await;
    assert!(refused(&guess));

    let answer = knock(BROUGHT).ask(gateway.address, "asana").await;
    assert_eq!((answer.status, answer.header("x-hook-secret")), (200, Some(BROUGHT)));
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), BROUGHT);
    assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = event(2).signed_with(BROUGHT).ask(gateway.address, "asana").await;
    assert_eq!((taken.status, taken.text()), (200, "ok"));
    let lines = gateway.lines(4).await;
    let forwarded = lines.iter().find(|line| line["outcome"] == "forwarded").unwrap();
    assert_eq!(forwarded["key_id"], "brought");
    let verified = gateway.metric("hookward_verified_total{key_id=\"brought\",route=\"asana\"}");
    assert_eq!(verified, 1.0);
    // The same configuration starts with the file as with any other.
    let again = Gateway::start(&conf).await;
    assert_eq!(
        event(3).signed_with(BROUGHT).ask(again.address, "asana").await.status,
        200
    );
    assert!(refused(
        &knock("another-secret-of-enough-bytes")
            .ask(again.address, "asana")
            .await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_first_secret_is_believed() {
    // Whoever comes second would have the route believe in their own events.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let gateway = Gateway::start(&folder.conf(&upstream, "", ARMED)).await;
    let second = "a-secret-of-somebody-else-entirely";
    assert_eq!(knock(BROUGHT).ask(gateway.address, "asana").await.status, 200);
    assert!(refused(&knock(second).ask(gateway.address, "asana").await));
    assert!(refused(&knock(BROUGHT).ask(gateway.address, "asana").await));
    assert!(refused(
        &event(1).signed_with(second).ask(gateway.address, "asana").await
    ));
    assert_eq!(
        event(2).signed_with(BROUGHT).ask(gateway.address, "asana").await.status,
        200
    );
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), BROUGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_believed() {
    // Two that were both told yes would sign with different secrets, and one of them in vain.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let gateway = Gateway::start(&folder.conf(&upstream, "", ARMED)).await;
    let secrets: Vec<String> = (0..16).map(|n| format!("a-secret-that-is-brought-by-{n:02}")).collect();
    let mut clients = Vec::new();
    for secret in &secrets {
        let mut client = Client::connect(gateway.address).await;
        client.send(&knock(secret).bytes("asana")).await;
        clients.push(client);
    }
    let mut believed = Vec::new();
    for (client, secret) in clients.iter_mut().zip(&secrets) {
        let answer = client.answer().await;
        if answer.status == 200 {
            believed.push(secret.clone());
        } else {
            assert!(refused(&answer));
        }
    }
    assert_eq!(believed, [fs::read_to_string(folder.file()).unwrap()]);
    assert_eq!(
        event(1)
            .signed_with(&believed[0])
            .ask(gateway.address, "asana")
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_believed_when_the_time_is_over() {
    // A window that stays open is an open door for whoever finds the address later.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let gateway = Gateway::start(&folder.conf(&upstream, "", ARMED)).await;
    gateway.clock.advance(Duration::from_secs(600));
    assert!(refused(&knock(BROUGHT).ask(gateway.address, "asana").await));
    assert!(!folder.file().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_does_not_wait_believes_nobody() {
    // The secret of a working route could be replaced by anybody.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    fs::write(folder.file(), SECRET).unwrap();
    for register in ["", ARMED] {
        let gateway = Gateway::start(&folder.conf(&upstream, "", register)).await;
        assert!(
            refused(&knock(BROUGHT).ask(gateway.address, "asana").await),
            "{register}"
        );
        assert_eq!(event(1).signed().ask(gateway.address, "asana").await.status, 200);
    }
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_none_is_not_kept() {
    // A key of a few bytes, or one that is half of what was sent, would be in force for years.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let gateway = Gateway::start(&folder.conf(&upstream, "", ARMED)).await;
    let long = "x".repeat(513);
    for secret in [
        "",
        "short",
        "caf\u{e9}-caf\u{e9}-caf\u{e9}-caf\u{e9}",
        "<script>alert(1)</script>",
        &long,
    ] {
        assert!(refused(&knock(secret).ask(gateway.address, "asana").await), "{secret}");
    }
    let twice = knock(BROUGHT).with("X-Hook-Secret", BROUGHT);
    assert!(refused(&twice.ask(gateway.address, "asana").await));
    assert!(!folder.file().exists());
    assert_eq!(knock(&long[1..]).ask(gateway.address, "asana").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_come_in_the_body() {
    // Notion sends it as a member of its first request.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let gateway = Gateway::start(&folder.conf(&upstream, "", ARMED)).await;
    let token = "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl";
    let question = Question::post(&format!("{{\"verification_token\":\"{token}\"}}"));
    let answer = question.ask(gateway.address, "asana").await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(
        event(1).signed_with(token).ask(gateway.address, "asana").await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_secrets_go_on_verifying_before_and_after() {
    // A second webhook of the same provider would stop the first one.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let others = format!("{{ value: {SECRET} }}, ");
    let gateway = Gateway::start(&folder.conf(&upstream, &others, ARMED)).await;
    assert_eq!(event(1).signed().ask(gateway.address, "asana").await.status, 200);
    // The same secret once more would be two keys of one.
    assert!(refused(&knock(SECRET).ask(gateway.address, "asana").await));
    assert_eq!(knock(BROUGHT).ask(gateway.address, "asana").await.status, 200);
    assert_eq!(event(2).signed().ask(gateway.address, "asana").await.status, 200);
    assert_eq!(
        event(3).signed_with(BROUGHT).ask(gateway.address, "asana").await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_forgets_no_secret_that_came_in() {
    // A configuration that was read before the secret came, and put in force after it, would lock the provider out.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = folder.conf(&upstream, "", ARMED);
    let gateway = Gateway::start(&conf).await;
    let read_before = plan_text("test.yaml", &format!("listen: [127.0.0.1:0]\n{conf}"), NOW)
        .0
        .unwrap();
    assert_eq!(knock(BROUGHT).ask(gateway.address, "asana").await.status, 200);
    gateway.put_in_force(read_before);
    assert_eq!(
        event(1).signed_with(BROUGHT).ask(gateway.address, "asana").await.status,
        200
    );
    assert!(refused(
        &knock("another-secret-of-enough-bytes")
            .ask(gateway.address, "asana")
            .await
    ));
    // An operator who takes the file away wants another one.
    fs::remove_file(folder.file()).unwrap();
    gateway.reload(&conf);
    assert!(refused(
        &event(2).signed_with(BROUGHT).ask(gateway.address, "asana").await
    ));
    let other = "another-secret-of-enough-bytes";
    assert_eq!(knock(other).ask(gateway.address, "asana").await.status, 200);
    assert_eq!(
        event(3).signed_with(other).ask(gateway.address, "asana").await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_keeps_the_route_waiting() {
    // The provider would sign with a secret that is gone after the next restart.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let gateway = Gateway::start(&folder.conf(&upstream, "", ARMED)).await;
    fs::remove_dir(&folder.0).unwrap();
    assert!(refused(&knock(BROUGHT).ask(gateway.address, "asana").await));
    assert!(refused(
        &event(1).signed_with(BROUGHT).ask(gateway.address, "asana").await
    ));
    fs::create_dir(&folder.0).unwrap();
    assert_eq!(knock(BROUGHT).ask(gateway.address, "asana").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_waited_for_stops_the_start() {
    // A route that waits in the wrong place would wait for ever, and nobody would know.
    let (folder, upstream) = (Folder::new(), Upstream::unreachable().await);
    let problems = |conf: &str| {
        let (_, problems) = plan_text("test.yaml", &format!("listen: [127.0.0.1:0]\n{conf}"), NOW);
        problems
            .iter()
            .map(|problem| problem.path().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        problems(&folder.conf(&upstream, "", ARMED)),
        ["routes[0].register"],
        "a warning"
    );
    let rows = [
        ("", "routes[0].secrets[0]"),
        (
            "register: { until: 2023-11-14T22:13:20Z, into: \"INTO\" }",
            "routes[0].secrets[0]",
        ),
        (
            "register: { until: 2023-11-14T22:23:20Z, into: /nowhere }",
            "routes[0].secrets[0]",
        ),
    ];
    for (register, path) in rows {
        let told = problems(&folder.conf(&upstream, "", register));
        assert!(told.iter().any(|at| at == path), "{register}: {told:?}");
    }
    let others = format!("{{ value: {SECRET} }}, ");
    let elsewhere = folder.conf(
        &upstream,
        &others,
        "register: { until: 2023-11-14T22:23:20Z, into: /nowhere }",
    );
    assert!(problems(&elsewhere).contains(&"routes[0].register.into".to_owned()));
    let plain = Asking {
        name: "asana",
        keys: "name: brings nothing",
        route: "register: { until: 2023-11-14T22:23:20Z, into: /nowhere }",
    };
    assert!(problems(&Asking::conf(&[plain], upstream.address).yaml()).contains(&"routes[0].register".to_owned()));
}
