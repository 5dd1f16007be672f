//! `hookward run` and `hookward check`: from a file to a gateway, or to an explanation.

use std::time::Duration;

use tokio::net::TcpListener;

use super::{PATIENCE, QUICKSTART, genuine, get, github, quickstart};
use crate::harness::process::{HOOKWARD, Process, Running, TestFile, address_after, hookward, run};
use crate::harness::{Client, SECRET, Upstream, request, route_yaml};

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_says_what_is_served_and_the_commands_it_offers_work() {
    // The first minute with the program decides whether there is a second.
    let gateway = quickstart().await;
    let banner = gateway.process.stderr.has("--forge\n\n").await;
    assert!(
        banner.contains(concat!("hookward ", env!("CARGO_PKG_VERSION"))),
        "{banner}"
    );
    assert_ne!(address_after(&banner, "webhooks").unwrap().port(), 0);
    assert_ne!(address_after(&banner, "admin").unwrap().port(), 0);
    for (path, provider, secret) in QUICKSTART {
        let limits = format!("{provider}: 50 events per 1s, bodies up to 1024 KiB, 256 in flight");
        assert!(banner.contains(&format!("POST {path} -> app\n")), "{path}: {banner}");
        assert!(banner.contains(&limits), "{limits}: {banner}");
        assert!(!banner.contains(secret) && !gateway.process.said().contains(secret));
    }
    let offered: Vec<_> = banner.lines().filter(|line| line.contains("--secret SECRET")).collect();
    assert_eq!(offered.len(), 2, "{banner}");
    for (line, told) in offered.iter().zip(["-> 200 in", "-> 401 in"]) {
        let command = line.replace("SECRET", QUICKSTART[0].2);
        let ended = run("sh", &["-c", &command], b"").await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(told), "{ended:?}");
    }
}

/// How many sockets the process listens on.
#[cfg(target_os = "linux")]
fn sockets_listened_on(process: &Process) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // State 0A is LISTEN; the tenth word is the socket's number.
    let listening: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words[3] == "0A")
        .map(|words| format!("socket:[{}]", words[9]))
        .collect();
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let links = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links
        .filter(|link| listening.iter().any(|socket| link.as_os_str() == socket.as_str()))
        .count()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn no_request_waits_for_a_page_of_megabytes() {
    // The system cleared two mebibytes at a time for the gateway, once a second, five milliseconds each on a virtual machine.
    let gateway = quickstart().await;
    gateway.process.stderr.has("--forge\n\n").await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    // Systems before Linux 5.0 do not say.
    let told = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert!(told.is_none_or(|told| told.trim() == "0"), "{told:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_listened_on_that_nobody_asked_for() {
    // Where every port of the system is in use, a gateway that wanted one more did not start.
    let upstream = Upstream::ok().await;
    let gateway = Running::start(&route_yaml(upstream.address, "")).await;
    assert_eq!(sockets_listened_on(&gateway.process), 2);
    // One more for the sample backend.
    assert_eq!(sockets_listened_on(&quickstart().await.process), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_requests_is_written_to_standard_output() {
    // A log pipeline that reads JSON from standard output stumbles over the first line that is none.
    let upstream = Upstream::ok().await;
    let yaml = route_yaml(upstream.address, "") + "log: { format: json }\n";
    let mut gateway = Running::start(&yaml).await;
    let elsewhere = b"GET /elsewhere HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    let mut client = Client::connect(gateway.address).await;
    for (bytes, status) in [(&github(b"{}")[..], 200), (&github(b"{}"), 200), (elsewhere, 404)] {
        client.send(bytes).await;
        assert_eq!(client.answer().await.status, status);
    }
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await, Some(0));
    let lines: Vec<serde_json::Value> = gateway
        .process
        .stdout
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["status"].as_u64(), line["outcome"].as_str()))
        .collect();
    let expected = [(200, "forwarded"), (200, "duplicate"), (404, "refused")];
    assert_eq!(told, expected.map(|(status, outcome)| (Some(status), Some(outcome))));
    assert_eq!(lines[2]["stage"], "route");
    assert_eq!(lines[2]["reason"], "no_route");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_for_people_has_one_line_for_each_request() {
    // Who is woken at night reads this line first.
    let upstream = Upstream::ok().await;
    let gateway = Running::start(&route_yaml(upstream.address, "")).await;
    let lines = |count| move |text: &str| text.matches('\n').count() == count;
    assert_eq!(request(gateway.address, &github(b"{\"n\":1}")).await.status, 200);
    gateway.process.stdout.until("a line", lines(1)).await;
    assert_eq!(get(gateway.address, "/elsewhere").await.status, 404);
    let log = gateway.process.stdout.until("two lines", lines(2)).await;
    let lines: Vec<_> = log.lines().collect();
    let (_, first) = lines[0].split_once(' ').unwrap();
    let (_, second) = lines[1].split_once(' ').unwrap();
    assert!(first.starts_with("200 forwarded - POST /webhooks/github route=github provider=github client=127.0.0.1"));
    assert!(
        second.starts_with("404 refused route/no_route GET /elsewhere client=127.0.0.1"),
        "{second}"
    );
    // What the process has to say about itself goes to the other stream.
    let told = gateway
        .process
        .stderr
        .has("whoever reads the file can forge events")
        .await;
    assert!(told.contains("hookward.yaml:"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_when_nobody_reads_its_output() {
    // A log collector that crashes must not take the webhooks with it.
    let upstream = Upstream::ok().await;
    let text = format!(
        "listen: [127.0.0.1:0]\nadmin: 127.0.0.1:0\n{}",
        route_yaml(upstream.address, "")
    );
    let config = TestFile::new("hookward.yaml", text);
    let mut process = Process::unread(HOOKWARD, &["run", config.name()]).await;
    let banner = process.stderr.has("everything else").await;
    let (address, admin) = (
        address_after(&banner, "webhooks").unwrap(),
        address_after(&banner, "admin").unwrap(),
    );
    assert_eq!(request(address, &github(b"{}")).await.status, 200);
    // What cannot be written is lost, and said to be.
    let lost = async {
        while !get(admin, "/metrics")
            .await
            .text()
            .contains("hookward_log_lines_dropped_total 1\n")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.expect("no line was lost");
    assert_eq!(request(address, &github(b"[]")).await.status, 200);
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_an_error_and_not_a_silent_service() {
    // Two gateways started by mistake: the second one must say so at once, not retry for half a minute.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["listen", "admin"] {
        let (listen, admin) = match key {
            "listen" => (address.to_string(), "127.0.0.1:0".to_owned()),
            _ => ("127.0.0.1:0".to_owned(), address.to_string()),
        };
        let yaml = format!(
            "listen: [\"{listen}\"]\nadmin: \"{admin}\"\n{}",
            route_yaml(address, "")
        );
        let config = TestFile::new("hookward.yaml", yaml);
        let ended = hookward(&["run", config.name()]).await;
        assert_eq!(ended.code, Some(1), "{key}: {ended:?}");
        let expected = format!("hookward: cannot listen on {address}: Address already in use");
        assert!(ended.stderr.contains(&expected), "{key}: {ended:?}");
        assert!(
            !ended.stderr.contains("webhooks  "),
            "{key}: a banner of a gateway that is not there: {ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_upstream_on_the_command_line_holds_over_reloads() {
    // Traffic meant for the backend of one's own machine would reach the production servers of the file.
    let configured = Upstream::unreachable().await;
    let meant = Upstream::ok().await;
    let yaml = route_yaml(configured.address, "");
    let url = format!("http://{}", meant.address);
    let gateway = Running::start_with(&yaml, &["--upstream", &url], &[]).await;
    assert_eq!(request(gateway.address, &github(b"{\"n\":1}")).await.status, 200);
    gateway.rewrite(&yaml.replace("/webhooks/github", "/webhooks/moved"));
    gateway.process.signal("HUP").await;
    gateway.process.stderr.has("reloaded").await;
    let moved = genuine("github", SECRET, "/webhooks/moved", "", b"{\"n\":2}");
    assert_eq!(request(gateway.address, &moved).await.status, 200);
    assert_eq!(meant.seen().len(), 2);
    assert_eq!(configured.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_no_server_stops_the_start() {
    // A typing mistake would otherwise be found by the first lost event.
    let config = TestFile::new(
        "hookward.yaml",
        format!("listen: [127.0.0.1:0]\n{}", route_yaml(([127, 0, 0, 1], 9).into(), "")),
    );
    for url in [
        "ftp://127.0.0.1:1",
        "http://127.0.0.1:1/path",
        "127.0.0.1",
        "http://:80",
        "http://127.0.0.1:70000",
        "http://127.0.0.1:",
        "http://127.0.0.1:+80",
        "http://[::1]:0",
    ] {
        let ended = hookward(&["run", config.name(), "--upstream", url]).await;
        assert_eq!(ended.code, Some(1), "{url}: {ended:?}");
        assert!(ended.stderr.contains("--upstream"), "{url}: {ended:?}");
    }
}

/// A key that is none, on line 1, in place of one that is missing, and a name that is none, on line 5.
const BAD: &str = r#"lissen: [127.0.0.1:0]
admin: off
upstreams: { app: { servers: ["127.0.0.1:9"] } }
routes:
  - name: Not A Name
    path: /webhooks/github
    provider: github
    secrets: [{ env: HOOKWARD_TEST_UNSET }]
    upstream: app
"#;

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_every_problem_with_its_line_and_run_tells_the_same() {
    // Mending a file one problem at a time takes an evening; starting on a half-understood one costs more.
    let bad = TestFile::new("bad.yaml", BAD);
    let checked = hookward(&["check", bad.name()]).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    for expected in [
        "bad.yaml:1: lissen: unknown key",
        "bad.yaml:5: routes[0].name: ",
        "the key listen is missing",
    ] {
        assert!(checked.stdout.contains(expected), "{expected}: {}", checked.stdout);
    }
    let ran = hookward(&["run", bad.name()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(78), ""));
    assert_eq!(ran.stderr, checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_said_to_be() {
    // An empty configuration in its place would be a gateway that lets everything through or nothing.
    for command in ["check", "run"] {
        let ended = hookward(&[command, "no/such/file.yaml"]).await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        let told = ended.stdout + &ended.stderr;
        assert!(
            told.contains("no/such/file.yaml: cannot be read: No such file or directory"),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_when_a_file_is_fit() {
    // Deployments ask this before they replace a file that works.
    let good = TestFile::new(
        "good.yaml",
        format!("listen: [127.0.0.1:0]\n{}", route_yaml(([127, 0, 0, 1], 9).into(), "")),
    );
    let ended = hookward(&["check", good.name()]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("good.yaml: fit to run: 1 route, 1 upstream\n"),
        "{}",
        ended.stdout
    );
    // What must be known and does not stop the start is said too, without the secret it is about.
    assert!(
        ended
            .stdout
            .contains("good.yaml:8: warning: routes[0].secrets[0].value"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains(SECRET));
}
