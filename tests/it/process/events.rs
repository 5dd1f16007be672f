//! `hookward events` on a gateway that runs, and on one that does not.

use crate::harness::process::{Running, TestFile, hookward};
use crate::harness::{Event, Folder, Queueing, Upstream, request};

async fn json(args: &[&str]) -> serde_json::Value {
    let ended = hookward(args).await;
    assert_eq!(ended.code, Some(0), "{args:?}\n{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", ended.stdout))
}

/// Dead letters of this file, once there are so many.
async fn dead(config: &str, count: usize) -> Vec<serde_json::Value> {
    for _ in 0..500 {
        let listed = json(&["events", "--config", config, "list", "--dead", "--json"]).await;
        let listed = listed.as_array().unwrap().clone();
        if listed.len() == count {
            return listed;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no {count} dead letters");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_seen_and_redriven_while_the_gateway_runs_and_while_it_does_not() {
    // An operator at night has one command, and does not know whether the gateway is up.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n < 3 { 410 } else { 200 }).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("billing", "github", "app", "");
    let mut running = Running::start(&conf.yaml()).await;
    for n in 0..3 {
        let event = Event::of("github", &n.to_string()).to("/webhooks/billing");
        assert_eq!(request(running.address, &event.bytes()).await.status, 200);
    }
    // The ports are those of the run: the file says where the API is.
    let text = format!("listen: [127.0.0.1:0]\nadmin: {}\n{}", running.admin, conf.yaml());
    let file = TestFile::new("running.yaml", text);
    let listed = dead(file.name(), 3).await;
    let id = listed[0]["id"].to_string();
    let shown = hookward(&["events", "--config", file.name(), "show", &id]).await;
    assert!(
        shown.stdout.contains("x-github-event: ") && shown.stdout.contains("the answer 410 is final"),
        "{}",
        shown.stdout
    );
    let nothing = hookward(&["events", "--config", file.name(), "retry"]).await;
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("say which events"), "{}", nothing.stderr);
    let one = json(&["events", "--config", file.name(), "retry", &id, "--json"]).await;
    assert_eq!(one, serde_json::json!({ "changed": 1, "skipped": 0 }));
    upstream.reached(4).await;
    dead(file.name(), 2).await;

    running.process.signal("TERM").await;
    assert_eq!(running.process.end().await, Some(0));
    dead(file.name(), 2).await;
    let exported = hookward(&["events", "--config", file.name(), "export", "--route", "billing"]).await;
    let lines: Vec<serde_json::Value> = exported
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["body_base64"].is_string()));
    let redriven = hookward(&[
        "events",
        "--config",
        file.name(),
        "retry",
        "--dead",
        "--route",
        "billing",
    ])
    .await;
    assert_eq!(
        redriven.stdout, "retry: 2 changed, 0 left as they are\n",
        "{}",
        redriven.stderr
    );

    // Who mistypes an id is told.
    let wrong = hookward(&["events", "--config", file.name(), "retry", "7"]).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("event 7: there is no event"), "{}", wrong.stderr);
    let paused = hookward(&["events", "--config", file.name(), "pause", "billing"]).await;
    assert_eq!(
        paused.stdout, "billing: paused from the next start on\n",
        "{}",
        paused.stderr
    );

    let running = Running::start(&conf.yaml()).await;
    let text = format!("listen: [127.0.0.1:0]\nadmin: {}\n{}", running.admin, conf.yaml());
    let file = TestFile::new("again.yaml", text);
    let routes = json(&["events", "--config", file.name(), "routes", "--json"]).await;
    assert_eq!(routes, serde_json::json!([{ "route": "billing", "paused": true }]));
    assert_eq!(upstream.count(), 4);
    let resumed = hookward(&["events", "--config", file.name(), "resume", "billing"]).await;
    assert_eq!(resumed.stdout, "billing: delivered\n", "{}", resumed.stderr);
    let unknown = hookward(&["events", "--config", file.name(), "pause", "biling"]).await;
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("no route of this name"),
        "{unknown:?}"
    );
    upstream.reached(6).await;
    // Who cannot ask the gateway does not open its directory behind its back.
    let text = format!("listen: [127.0.0.1:0]\nadmin: off\n{}", conf.yaml());
    let closed = TestFile::new("closed.yaml", text);
    let refused = hookward(&["events", "--config", closed.name(), "list"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    drop(running);
}
