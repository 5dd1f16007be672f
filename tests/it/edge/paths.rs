//! Paths with the application behind them: no spelling of a protected path may reach the application's own handler
//! for it unverified, and no path of the application may be mistaken for one.

use crate::harness::{Client, Gateway, Upstream, github, request, route_yaml};

/// What some server, framework or middleware takes for `/webhooks/github`.
const SPELLINGS: &[&str] = &[
    // Slashes.
    "//webhooks/github",
    "/webhooks//github",
    "/webhooks///github",
    "/webhooks/github/",
    "/webhooks/github//",
    "///webhooks///github///",
    "/webhooks%2fgithub",
    "/webhooks%2Fgithub",
    "/webhooks/github%2f",
    "/%2fwebhooks/github",
    "/%2Fwebhooks%2Fgithub%2F",
    "/webhooks/%2fgithub",
    "/webhooks%2f%2fgithub",
    // Backslashes.
    "/webhooks\\github",
    "/\\webhooks/github",
    "/webhooks/github\\",
    "/webhooks%5cgithub",
    "/webhooks%5Cgithub",
    "/%5cwebhooks%5cgithub",
    // Dots.
    "/./webhooks/github",
    "/webhooks/./github",
    "/webhooks/github/.",
    "/webhooks/github/./",
    "/x/../webhooks/github",
    "/webhooks/x/../github",
    "/webhooks/github/x/..",
    "/webhooks/github/x/../",
    "/../webhooks/github",
    "/../../webhooks/github",
    "/x/y/../../webhooks/github",
    "/webhooks/../webhooks/github",
    "/webhooks/%2e/github",
    "/webhooks/%2E/github",
    "/webhooks/x/%2e%2e/github",
    "/webhooks/x/.%2e/github",
    "/webhooks/x/%2E./github",
    "/webhooks/x/%2e%2e%2fgithub",
    "/webhooks/x%2f..%2fgithub",
    "/webhooks/x\\..\\github",
    "/webhooks/x%5c..%5cgithub",
    "/webhooks/.../github",
    "/webhooks./github",
    "/webhooks/github.",
    "/webhooks/github...",
    // Letters.
    "/Webhooks/github",
    "/webhooks/GitHub",
    "/WEBHOOKS/GITHUB",
    "/%77ebhooks/github",
    "/webhooks/%67ithub",
    "/webhooks/%47itHub",
    "/%77%65%62%68%6f%6f%6b%73/%67%69%74%68%75%62",
    // Encoded more than once.
    "/webhooks%252fgithub",
    "/webhooks/%252e/github",
    "/webhooks/x/%252e%252e/github",
    "/%2577ebhooks/github",
    "/webhooks/%25%36%37ithub",
    "/webhooks%25252fgithub",
    "/webhooks%255cgithub",
    // Parameters, and what is cut off.
    "/webhooks/github;",
    "/webhooks/github;v=1",
    "/webhooks;v=1/github",
    "/;v=1/webhooks/github",
    "/webhooks/;/github",
    "/webhooks/x/..;/github",
    "/webhooks/github%3bv=1",
    "/webhooks/github%00",
    "/webhooks/github%00.png",
    "/webhooks/github%00/x",
    "/webhooks/github%2500",
    "/webhooks/github%3f",
    "/webhooks/github%3fx=1",
    "/webhooks/github%3f/../x",
    "/webhooks/github%23",
    "/webhooks/github%23x",
    "/webhooks/github%00/../../x",
    // White space.
    "/webhooks/github%20",
    "/webhooks/%20github",
    "/webhooks/github%09",
    "/webhooks/github%0a",
    "/webhooks/github%0d%0a",
    "/webhooks/github%0b",
    "/webhooks%20/github",
    "/webhooks/github%c2%a0",
    "/webhooks/github+",
    // Longer than UTF-8 allows.
    "/webhooks%c0%afgithub",
    "/webhooks/%c0%ae/github",
    "/webhooks/x/%c0%ae%c0%ae/github",
    "/webhooks%e0%80%afgithub",
    "/webhooks%c1%9cgithub",
    // A format behind it (Rails, Spring).
    "/webhooks/github.json",
    "/webhooks/github.xml",
    "/webhooks/github.JSON",
    "/webhooks/github.json/",
    "/webhooks/github%2ejson",
    "/webhooks/github.json;v=1",
    "/webhooks/github.x.json",
    // A script before it (PHP and CGI).
    "/index.php/webhooks/github",
    "/index.php/webhooks/github/",
    "/app/index.php/webhooks/github",
    "/cgi-bin/app.cgi/webhooks/github",
    "/index.php//webhooks/github",
    "/INDEX.PHP/Webhooks/Github",
    "/index%2ephp/webhooks/github",
];

/// What is read as the name of a host, and the protected path below it, by whoever parses targets like references:
/// `new URL(request.url, base)` in JavaScript, `parse_url` in PHP, `urlsplit` in Python.
const BELOW_HOSTS: &[&str] = &[
    "//example.com/webhooks/github",
    "//x/webhooks/github",
    "//gateway.test@/webhooks/github",
    "//user:pass@gateway.test:80/webhooks/github",
    "//[::1]:8080/webhooks/github",
    "///x/webhooks/github",
    "////x//webhooks//github/",
    "/\\x/webhooks/github",
    "//x\\webhooks\\github",
    "//webhooks/webhooks/github",
    "//x/./webhooks/y/../github",
    "//x/Webhooks/%67ithub",
    "//x/webhooks/github.json",
    "//x/index.php/webhooks/github",
    "/%2fx/webhooks/github",
    "/%5cx/webhooks/github",
    "//x/webhooks/github;v=1",
    "//x:/webhooks/github%00",
    "//%78/webhooks/github",
    "//~!$&'()*+,=/webhooks/github",
    "/http://x/webhooks/github",
    "/http:/webhooks/github",
    "/https:////webhooks/github",
];

/// Which segments `..` takes away is another matter to each reader: whether an empty one counts, one with a parameter,
/// one that holds an encoded slash.
const CLIMBING: &[&str] = &[
    "/webhooks/a//../../github",
    "/webhooks//../github",
    "/webhooks/github//..",
    "/webhooks/github///../..",
    "/webhooks/a%2fb/../github",
    "/webhooks/a%5cb/../github",
    "/webhooks/a%252fb/../github",
    "/webhooks/;/../github",
    "/webhooks/;a=1/../github",
    "/webhooks/..;/../github",
    "/webhooks/%20/../github",
    "/webhooks/./../webhooks/github",
    "/webhooks/%2e/../github",
    "/webhooks/.%00/../github",
    "/a/..%2f../webhooks/github",
    "/webhooks/github/a%2fb/..",
    "/webhooks/x/../../webhooks/y/github",
];

/// A path in pieces that can be spelt in many ways: every combination of them but the right one.
fn combined() -> Vec<String> {
    let beginnings = ["/", "//", "/./", "/x/../", "/%2f", "/\\", "/index.php/", "/a/b/../..//"];
    let between = [
        "/", "//", "/./", "%2f", "%2F", "%252f", "\\", "%5c", "/x/../", "/;a/", "%c0%af", "/%20/",
    ];
    let ends = [
        "", "/", "/.", ";a", "%20", ".json", "%00", "%3f", "...", "%0d%0a", "/x/..",
    ];
    let words = [
        ["webhooks", "github"],
        ["WebHooks", "GITHUB"],
        ["%77ebhooks", "gi%74hub"],
    ];
    let mut combined = Vec::new();
    for beginning in beginnings {
        for between in between {
            for end in ends {
                combined.extend(words.map(|[a, b]| format!("{beginning}{a}{between}{b}{end}")));
            }
        }
    }
    combined.retain(|path| path != "/webhooks/github");
    combined
}

/// The application's own.
const OTHERS: &[&str] = &[
    "/",
    "/index.html",
    "/index.php",
    "/index.php/login",
    "/webhooks",
    "/webhooks/",
    "/webhooks.json",
    "/webhooks/gitlab",
    "/webhooks/github2",
    "/webhooks/github-app",
    "/webhooks/github/settings",
    "/webhooks/github/deliveries/1.json",
    "/webhooks/githu",
    "/webhooks/git%68u",
    "/webhooks/x/github",
    "/webhooks-github",
    "/webhooksgithub",
    "/github",
    "/docs/webhooks/github",
    "/docs/v1.2/webhooks/github/x",
    "/files/..%2f..%2fx",
    "/a/./b/../c//d",
    "/%e4%20%",
    "/%zz/%",
    "/search;page=2",
    "//cdn.example/lib.js",
    "//x/y/webhooks/github",
    "/x//webhooks/github",
    "/search?q=/webhooks/github",
    "/?/webhooks/github",
    "/x?y=%2e%2e%2f&z[]={1}|`^\\",
    "/Case/Is/KEPT/%2F%2f",
    "/caf%c3%a9/%E2%98%83",
];

fn post(target: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes()
}

/// Those of `spellings` that are not refused as ambiguous on a connection that stays open; the first few of them.
async fn mistaken(gateway: &Gateway, spellings: &[impl AsRef<str>], request: fn(&str) -> Vec<u8>) -> Vec<String> {
    let mut mistaken = Vec::new();
    for spelling in spellings.iter().map(AsRef::as_ref) {
        let mut client = Client::connect(gateway.address).await;
        client.send(&request(spelling)).await;
        let answer = client.answer().await;
        let refused = (answer.status, answer.text()) == (400, "ambiguous_path\n");
        if !refused || answer.header("connection") != Some("keep-alive") {
            mistaken.push(format!("{} {spelling}", answer.status));
        }
    }
    mistaken.truncate(20);
    mistaken
}

const NONE: Vec<String> = Vec::new();

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_protected_path_reaches_the_application() {
    // The application still has the handler that the gateway protects: one spelling that slips past is an unverified
    // event, and that with a signature header which the application believes to have been checked.
    let upstream = Upstream::unreachable().await;
    let yaml = format!("{}passthrough: app\n", route_yaml(upstream.address, ""));
    let gateway = Gateway::start(&yaml).await;
    let mut spellings: Vec<String> = SPELLINGS.iter().map(|spelling| (*spelling).to_owned()).collect();
    spellings.extend(SPELLINGS.iter().map(|spelling| format!("{spelling}?a=1")));
    spellings.extend(combined());
    assert!(spellings.len() > 3000, "{}", spellings.len());
    assert_eq!(mistaken(&gateway, &spellings, post).await, NONE);
    let lines = gateway.lines(spellings.len()).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "route" && line["reason"] == "ambiguous_path")
    );
    let series = r#"hookward_requests_total{outcome="refused",provider="-",reason="route/ambiguous_path",route="-"}"#;
    assert_eq!(gateway.metric(series), spellings.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_protected_below_what_may_be_a_host() {
    // `//x/webhooks/github` is `/webhooks/github` to a backend that parses `new URL(request.url, base)`: unverified events
    // would reach its handler through the pass-through.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&format!("{}passthrough: app\n", route_yaml(upstream.address, ""))).await;
    assert_eq!(mistaken(&gateway, BELOW_HOSTS, post).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_protected_whichever_segments_are_taken_away() {
    // `/webhooks/a//../../github` is `/github` to nginx and `/webhooks/github` to `new URL(...)`: judged in one way and
    // served in the other, it was an unverified event.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&format!("{}passthrough: app\n", route_yaml(upstream.address, ""))).await;
    assert_eq!(mistaken(&gateway, CLIMBING, post).await, NONE);
    let long = format!("/{}../x", "a/".repeat(100));
    assert_eq!(mistaken(&gateway, &[long], post).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spelling_is_refused_although_it_is_signed() {
    // A provider configured with a sloppy address must learn it at once, and not by which server is behind.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let signed = |spelling: &str| {
        let genuine = String::from_utf8(github(b"{}")).unwrap();
        genuine.replacen("/webhooks/github", spelling, 1).into_bytes()
    };
    assert_eq!(mistaken(&gateway, SPELLINGS, signed).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_below_a_protected_script_is_protected() {
    // `/hooks/pay.php/x` runs `/hooks/pay.php`.
    let upstream = Upstream::unreachable().await;
    let yaml = route_yaml(upstream.address, "").replace("/webhooks/github", "/hooks/pay.php");
    let gateway = Gateway::start(&format!("{yaml}passthrough: app\n")).await;
    let spellings = [
        "/hooks/pay.php/",
        "/hooks/pay.php/x",
        "/hooks/PAY.php/x/y",
        "/hooks/x/../pay.php/y",
        "/hooks/pay.php.json",
    ];
    assert_eq!(mistaken(&gateway, &spellings, post).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_own_paths_pass_as_they_were_sent() {
    // A gateway that refuses or rewrites paths of the application breaks it.
    let upstream = Upstream::ok().await;
    let yaml = format!("{}passthrough: app\n", route_yaml(upstream.address, ""));
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    for other in OTHERS {
        client.send(&post(other)).await;
        assert_eq!(client.answer().await.status, 200, "{other}");
    }
    let seen: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen.head.lines().next().unwrap().to_owned())
        .collect();
    let sent: Vec<_> = OTHERS.iter().map(|other| format!("POST {other} HTTP/1.1")).collect();
    assert_eq!(seen, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pass_through_other_paths_are_not_found() {
    // Default deny: what nobody configured reaches nobody.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let mut client = Client::connect(gateway.address).await;
    for other in OTHERS {
        client.send(&post(other)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (404, "no_route\n"), "{other}");
    }
    let lines = gateway.lines(OTHERS.len()).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "route" && line["reason"] == "no_route")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_another_host_is_not_found() {
    // A protected path under a foreign name must not fall through to the application.
    let upstream = Upstream::unreachable().await;
    let yaml = format!("{}passthrough: app\n", route_yaml(upstream.address, "host: hooks.test"));
    let gateway = Gateway::start(&yaml).await;
    let genuine = String::from_utf8(github(b"{}")).unwrap();
    for host in [
        "gateway.test",
        "hooks.test.",
        "xhooks.test",
        "hooks.test:80.evil.test",
        "hooks.tes",
        "[::1]",
    ] {
        let event = genuine.replace("gateway.test", host);
        let answer = request(gateway.address, event.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 404), "{host}: {}", answer.status);
    }
    let event = genuine.replace("HTTP/1.1\r\nHost: gateway.test", "HTTP/1.0");
    assert_eq!(
        request(gateway.address, event.as_bytes()).await.status,
        404,
        "no host at all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_answers_to_its_host_in_every_spelling() {
    // Names of hosts have no case, and a port is no part of them.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "host: hooks.test\nreplay: off")).await;
    let genuine = String::from_utf8(github(b"{}")).unwrap();
    for host in ["hooks.test", "HOOKS.Test", "hooks.test:443", "hooks.test:"] {
        let event = genuine.replace("gateway.test", host);
        assert_eq!(request(gateway.address, event.as_bytes()).await.status, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_routes_methods_are_taken() {
    // What the backend does with a GET or a PUT on its webhook path is not for strangers to find out.
    let upstream = Upstream::unreachable().await;
    let yaml = format!(
        "{}passthrough: app\n",
        route_yaml(upstream.address, "methods: [POST, PUT]")
    );
    let gateway = Gateway::start(&yaml).await;
    let genuine = String::from_utf8(github(b"{}")).unwrap();
    let methods = [
        "GET", "DELETE", "PATCH", "OPTIONS", "post", "POSTS", "PROPFIND", "M-SEARCH", "!",
    ];
    let mut client = Client::connect(gateway.address).await;
    for method in methods {
        let event = genuine.replacen("POST", method, 1);
        client
            .send(
                event
                    .replacen("Content-Type", "X-HTTP-Method-Override: POST\r\nContent-Type", 1)
                    .as_bytes(),
            )
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (405, "method\n"), "{method}");
        assert_eq!(answer.header("allow"), Some("POST, PUT"), "{method}");
    }
    client.send(genuine.replacen("POST", "HEAD", 1).as_bytes()).await;
    let answer = client.bodiless_answer().await;
    assert_eq!((answer.status, answer.header("content-length")), (405, Some("7")));
    let lines = gateway.lines(methods.len() + 1).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "route" && line["reason"] == "method")
    );
}
