//! What strangers write must not become series of metrics, nor anything in a log but printable text on its own line.

use crate::harness::{Client, Conf, Gateway, Upstream, request};

/// Requests, of which no two are alike; `HOOKWARD_LABELS` is another number.
fn count() -> u64 {
    let set = std::env::var("HOOKWARD_LABELS").ok();
    set.map_or(8_000, |text| text.parse().expect("HOOKWARD_LABELS is a number"))
}

async fn series(gateway: &Gateway) -> usize {
    let metrics = request(gateway.admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    metrics.text().lines().filter(|line| !line.starts_with('#')).count()
}

/// A request that nobody has sent before: to nowhere, to a route under a foreign signature, or in an odd spelling.
fn scattered(n: u64) -> String {
    let word = format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (method, path) = match n % 5 {
        0 => ("POST", format!("/{word}")),
        1 => ("POST", "/webhooks/github".to_owned()),
        2 => ("GET", "/webhooks/github".to_owned()),
        3 => ("POST", format!("/webhooks/./github/../github?{word}")),
        _ => ("DELETE", format!("/{word}/\\{word}%1b[31m%0a")),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {word}.test\r\nX-GitHub-Event: {word}\r\nX-GitHub-Delivery: {word}\r\n\
         User-Agent: {word}\u{9b}31m\u{2028}\r\nX-Hub-Signature-256: sha256={}\r\nX-Forwarded-For: {word}\r\n\
         Content-Length: 0\r\n\r\n",
        word.repeat(4)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_add_no_series_and_no_lines() {
    // Whoever can add series to the metrics takes the monitoring down, and with it whoever would notice.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    let before = series(&gateway).await;
    let (address, each) = (gateway.address, count() / 8);
    let clients = (0..8_u64).map(|client| {
        tokio::spawn(async move {
            let mut connection = Client::connect(address).await;
            for n in 0..each {
                connection.send(scattered((client << 40) + n).as_bytes()).await;
                let answer = connection.answer().await;
                assert!((400..500).contains(&answer.status), "{}", answer.status);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let sent = usize::try_from(8 * each).unwrap();
    // Each line is read as JSON there; a line end or a control character of a stranger's would be one too many.
    let lines = gateway.lines(sent).await;
    assert_eq!(lines.len(), sent);
    let after = series(&gateway).await;
    // A series more for each reason that was met, as if a thousand had met it.
    assert!(after - before <= 20, "{before} series, then {after}");
    for line in lines.iter().take(1000) {
        for (name, value) in line.as_object().unwrap() {
            let text = value.to_string();
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}: {text}");
        }
    }
}
