//! `passthrough`: the rest of the application behind the gateway, through Pingora's own proxy.
//!
//! Whatever is no webhook must work as if the gateway were not there, and nothing that is one may take this way.

mod failures;
mod heads;
mod streams;

use crate::harness::{Client, Gateway, SECRET, Upstream, github, request};

/// A GitHub route and everything else to the same upstream, given as the inside of its mapping.
fn config(upstream: &str) -> String {
    format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         upstreams: {{ app: {{ {upstream} }} }}\npassthrough: app\n\
         routes:\n  - name: github\n    path: /webhooks/github\n    provider: github\n    \
         secrets: [{{ value: {SECRET} }}]\n    upstream: app\n"
    )
}

/// The same, to one server.
fn to(upstream: &Upstream) -> String {
    config(&format!("servers: [\"{}\"]", upstream.address))
}

const PASSED: &str = r#"hookward_requests_total{outcome="passed",provider="-",reason="-",route="-"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_no_webhook_reaches_the_application() {
    // Put in front of an application, the gateway must not take any of it away.
    let app = Upstream::answering(|_, seen| {
        let line = seen.head.lines().next().unwrap();
        let said = format!("{line} {}", String::from_utf8_lossy(&seen.body));
        let body = if line.starts_with("HEAD") { "" } else { &said };
        format!(
            "HTTP/1.1 203 Said\r\nContent-Length: {}\r\nX-App: 1\r\n\r\n{body}",
            said.len()
        )
        .into_bytes()
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    let cases = [
        ("GET", "/", ""),
        ("GET", "/index.html?a=b&c=%20", ""),
        ("POST", "/api/orders", "{\"n\":1}"),
        ("PUT", "/api/orders/1", "x"),
        ("PATCH", "/api/orders/1", "y"),
        ("DELETE", "/api/orders/1", ""),
        ("OPTIONS", "/api", ""),
        ("PROPFIND", "/dav", "<a/>"),
        ("GET", "/webhooks", ""),
        ("GET", "/webhooks/github2", ""),
        ("POST", "/%7Euser/%E2%82%AC", "z"),
    ];
    for (n, (method, path, body)) in cases.into_iter().enumerate() {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(format!("{head}{body}").as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("x-app")), (203, Some("1")));
        assert_eq!(answer.text(), format!("{method} {path} HTTP/1.1 {body}"));
        let line = &gateway.lines(n + 1).await[n];
        let logged = ["outcome", "method", "path"].map(|key| line[key].as_str().unwrap());
        assert_eq!(logged, ["passed", method, path.split('?').next().unwrap()]);
        assert_eq!((&line["status"], &line["http"]), (&203.into(), &"1.1".into()));
        assert_eq!(
            (&line["bytes_in"], &line["bytes_out"]),
            (&body.len().into(), &answer.body.len().into())
        );
        assert_eq!(
            (&line["server"], &line["attempts"]),
            (&app.address.to_string().into(), &1.into())
        );
    }
    client.send(b"HEAD /page HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(client.bodiless_answer().await.header("content-length"), Some("20"));
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "OPTIONS * HTTP/1.1 ");

    gateway.lines(13).await;
    assert_eq!(gateway.metric(PASSED), 13.0);
    let ok = r#"hookward_upstream_attempts_total{result="ok",upstream="app"}"#;
    let answers = r#"hookward_upstream_answers_total{class="2xx",upstream="app"}"#;
    assert_eq!((gateway.metric(ok), gateway.metric(answers)), (13.0, 13.0));
    // The pool may miss one that is just being put back.
    assert!(app.connections() < 6, "{}", app.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_verified_first_in_the_same_configuration() {
    // The one way in that nobody may find: a webhook path that reaches the application unproven.
    let app = Upstream::ok().await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    let refused: [(&[u8], u16); 9] = [
        (
            b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            401,
        ),
        (
            b"POST /webhooks/github?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            401,
        ),
        (b"GET /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (
            b"PUT /webhooks/github HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            405,
        ),
        (
            b"POST /webhooks//github HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
        (
            b"POST /webhooks/github/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
        (
            b"POST /Webhooks/GitHub HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
        (
            b"POST /webhooks/%67ithub HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
        (
            b"POST /x/../webhooks/github HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
    ];
    for (bytes, status) in refused {
        client.send(bytes).await;
        assert_eq!(
            client.answer().await.status,
            status,
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(app.seen().len(), 0);
    client.send(&github(b"{}")).await;
    assert_eq!(client.answer().await.text(), "ok");
    client.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "ok");
    let seen = app.seen();
    assert_eq!(seen[0].header("x-hookward-verified"), Some("verified"));
    assert_eq!(seen[1].header("x-hookward-verified"), None);
    let outcomes: Vec<_> = gateway
        .lines(11)
        .await
        .iter()
        .map(|line| line["outcome"].clone())
        .collect();
    assert_eq!(outcomes[9..], ["forwarded", "passed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_a_route_under_one_host_is_nobodys_under_another() {
    // Host is what the client likes to write: with another one, the path would reach the application unverified.
    let app = Upstream::ok().await;
    let yaml = to(&app).replace("    path:", "    host: hooks.example.com\n    path:");
    let gateway = Gateway::start(&yaml).await;
    for (host, status) in [
        ("hooks.example.com", 200),
        ("HOOKS.example.com:8080", 200),
        ("app.example.com", 404),
        ("hooks.example.com.", 404),
        ("hooks.example.com.evil.test", 404),
        ("127.0.0.1", 404),
    ] {
        let body = format!("{{\"host\":\"{host}\"}}");
        let event = github(body.as_bytes());
        let event = String::from_utf8(event).unwrap().replace("gateway.test", host);
        assert_eq!(
            request(gateway.address, event.as_bytes()).await.status,
            status,
            "{host}"
        );
    }
    assert_eq!(app.seen().len(), 2);
    let page = request(gateway.address, b"GET /page HTTP/1.1\r\nHost: app.example.com\r\n\r\n").await;
    assert_eq!((page.status, app.seen().len()), (200, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_there_is_nothing_else() {
    // An application must not be reachable through the gateway because somebody forgot a line.
    let app = Upstream::unreachable().await;
    let gateway = Gateway::start(&to(&app).replace("passthrough: app\n", "")).await;
    let mut client = Client::connect(gateway.address).await;
    for path in ["/", "/api", "/webhooks", "/webhooks/github2", "/metrics", "/healthz"] {
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (404, "no_route\n"), "{path}");
    }
    gateway.lines(6).await;
    let refused = r#"hookward_requests_total{outcome="refused",provider="-",reason="route/no_route",route="-"}"#;
    assert_eq!(gateway.metric(refused), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_it_on_and_off_needs_no_restart() {
    // A reload is how an operator closes the application in a hurry.
    let app = Upstream::ok().await;
    let (on, off) = (to(&app), to(&app).replace("passthrough: app\n", ""));
    let gateway = Gateway::start(&off).await;
    let mut client = Client::connect(gateway.address).await;
    for (yaml, status) in [(&off, 404), (&on, 200), (&off, 404), (&on, 200)] {
        gateway.reload(yaml);
        client.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.status, status);
    }
}
