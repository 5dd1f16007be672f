//! A backend as people write it: a plain Hono application for GitHub's events, down for a while.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::harness::process::{Process, Running, TestFile};
use crate::harness::{Event, Folder, Queueing, Refusing, request};

/// Keeps what it gets in a file: a line of JSON an event.
const RECEIVER: &str = r#"
import { appendFileSync } from "node:fs";
import { Hono } from "hono";
import { serve } from "@hono/node-server";
const app = new Hono();
app.post("/webhooks/github", async (c) => {
  const event = c.req.header("x-github-event");
  if (!event) return c.text("no event", 400);
  const body = Buffer.from(await c.req.arrayBuffer()).toString("base64");
  const attempt = c.req.header("x-hookward-attempt");
  const signature = c.req.header("x-hub-signature-256");
  appendFileSync(process.argv[3], JSON.stringify({ event, body, attempt, signature }) + "\n");
  return c.json({ ok: true });
});
serve({ fetch: app.fetch, hostname: "127.0.0.1", port: Number(process.argv[2]) }, () => console.log("listening"));
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_hono_backend_that_was_down_gets_everything_exactly_as_sent() {
    // The first thing that most people put behind the gateway.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let modules = target.join("sdk/node_modules");
    assert!(
        modules.join("hono").is_dir(),
        "`make test` installs hono into {}",
        modules.display()
    );
    let (folder, refusing) = (Folder::new(), Refusing::new());
    let address = refusing.address;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", address, "breaker_pause: 100ms")
        .route(
            "github",
            "github",
            "app",
            "retry: { exponential: { base: 100ms, factor: 1, cap: 100ms, attempts: 900 } }",
        );
    let running = Running::start(&conf.yaml()).await;
    let events: Vec<Event> = (0..50).map(|n| Event::of("github", &n.to_string())).collect();
    for event in &events {
        assert_eq!(request(running.address, &event.bytes()).await.status, 200);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(refusing);
    // Node finds packages beside the script, and nowhere else.
    let script = modules
        .parent()
        .unwrap()
        .join(format!("receiver-{}.mjs", std::process::id()));
    std::fs::File::create(&script)
        .unwrap()
        .write_all(RECEIVER.as_bytes())
        .unwrap();
    let kept = TestFile::new("events.jsonl", "");
    let args = [
        script.to_str().unwrap().to_owned(),
        address.port().to_string(),
        kept.name().to_owned(),
    ];
    let node = Process::start("node", &args, &[]);
    node.stdout.has("listening").await;
    let mut lines: Vec<serde_json::Value> = Vec::new();
    for _ in 0..3000 {
        let text = std::fs::read_to_string(kept.path()).unwrap();
        lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if lines.len() >= events.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _ = std::fs::remove_file(&script);
    assert_eq!(lines.len(), events.len(), "{}\n{}", node.said(), running.process.said());
    use base64::Engine as _;
    for event in &events {
        let body = base64::engine::general_purpose::STANDARD.encode(&event.body);
        let of_event: Vec<_> = lines.iter().filter(|line| line["body"] == body.as_str()).collect();
        assert_eq!(of_event.len(), 1, "once and byte for byte");
        assert_eq!(of_event[0]["event"], event.value("x-github-event"));
        assert_eq!(of_event[0]["signature"], event.value("x-hub-signature-256"));
    }
}
