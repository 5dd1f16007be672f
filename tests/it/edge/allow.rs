//! Whom a route hears: by address, by certificate, and nobody whose address or certificate is in doubt.

use bytes::Bytes;
use http::Request;
use tokio_rustls::rustls::HandshakeKind;

use crate::harness::process::{Running, TestFile, hookward};
use crate::harness::{
    Answer, Authority, Client, Conf, Event, Gateway, H2, Identity, SECRET, Tls, Upstream, request, sign_github,
};

/// A genuine event with header lines of its own.
fn event(lines: &[&str]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let signature = sign_github(b"{}");
    format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: a\r\n{lines}X-Hub-Signature-256: {signature}\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    )
    .into_bytes()
}

fn is_refused(answer: &Answer, word: &str) -> bool {
    (answer.status, answer.text()) == (403, &format!("{word}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_hears_the_addresses_that_are_listed_and_no_others() {
    // Whoever stole a secret would use it from anywhere; whoever can seem to be at a listed address would, too.
    let upstream = Upstream::ok().await;
    let list = TestFile::new(
        "list",
        "# from the provider\n198.51.100.0/25\n2001:db8:1::/48 # all of it\n",
    );
    let conf = |addresses: &str| {
        let allow = format!(
            "replay: off, allow: {{ networks: [{addresses}], files: [{:?}] }}",
            list.name()
        );
        Conf::to(upstream.address)
            .top("client: { trusted_proxies: [127.0.0.1, 10.0.0.0/8] }")
            .top("passthrough: app")
            .route("github", &allow)
            .route("shopify", "replay: off")
            .yaml()
    };
    let gateway = Gateway::start(&conf("192.0.2.0/24")).await;
    let ours = Gateway::start(&conf("192.0.2.0/24, 127.0.0.1, 10.0.0.0/8")).await;
    for (lines, heard, at_ours) in [
        (&["X-Forwarded-For: 192.0.2.255"][..], true, true),
        (&["X-Forwarded-For: 198.51.100.127"], true, true),
        (&["X-Forwarded-For: 2001:db8:1:ffff::1"], true, true),
        (&["X-Forwarded-For: ::ffff:192.0.2.1"], true, true),
        (&["X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.1.2.3"], true, true),
        (&["X-Forwarded-For: 192.0.3.0"], false, false),
        (&["X-Forwarded-For: 198.51.100.128"], false, false),
        (&["X-Forwarded-For: 2001:db8:2::1"], false, false),
        // The left part is the client's own invention.
        (&["X-Forwarded-For: 192.0.2.1, 203.0.113.9"], false, false),
        (
            &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 203.0.113.9"],
            false,
            false,
        ),
        // A proxy that speaks for itself is at its own address.
        (&[], false, true),
        (&["X-Forwarded-For: 10.1.2.3"], false, true),
        // One that speaks for somebody whom nobody can name is not: the somebody would get its rights.
        (&["X-Forwarded-For: unknown"], false, false),
        (&["X-Forwarded-For: 192.0.2.1, x"], false, false),
        (
            &["X-Forwarded-For: 203.0.113.9", "Forwarded: for=192.0.2.1"],
            false,
            false,
        ),
    ] {
        for (gateway, heard) in [(&gateway, heard), (&ours, at_ours)] {
            let before = upstream.count();
            let answer = request(gateway.address, &event(lines)).await;
            match heard {
                true => assert_eq!(answer.status, 200, "{lines:?}"),
                false => assert!(is_refused(&answer, "address"), "{lines:?}: {}", answer.head),
            }
            assert_eq!(upstream.count() - before, usize::from(heard), "{lines:?}");
        }
    }
    // Whoever connects without a proxy is where he is, whatever he says.
    let mut stranger = Client::connect_from("127.0.0.9", gateway.address).await;
    stranger.send(&event(&["X-Forwarded-For: 192.0.2.1"])).await;
    assert!(is_refused(&stranger.answer().await, "address"));
    // Other routes, and what is no route, are open to everybody.
    stranger.send(&Event::of("shopify", "1").bytes()).await;
    assert_eq!(stranger.answer().await.status, 200);
    stranger.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(stranger.answer().await.status, 200);
    // Over HTTP/2 as well.
    let mut http2 = H2::connect(gateway.address).await;
    for (client, status) in [("192.0.2.1", 200), ("203.0.113.9", 403)] {
        let mut request = over_h2("http", &Event::of("github", client));
        request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
        assert_eq!(http2.ask(request).await.unwrap().status(), status, "{client}");
    }
}

fn over_h2(scheme: &str, event: &Event) -> Request<Bytes> {
    let mut request = Request::post(format!("{scheme}://hooks.test{}", event.path));
    for (name, value) in &event.headers {
        request = request.header(name, value);
    }
    request.body(event.body.clone().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_answer_to_an_unsigned_question_either() {
    // The token of a subscription could be guessed from everywhere, and methods and headers of a route be explored.
    let upstream = Upstream::unreachable().await;
    let meta = "provider: meta, secrets: [{ value: a-secret-for-tests-only }]";
    let keys = "settings: { verify_token: a-token-for-tests }, allow: { networks: [127.0.0.1] }";
    let conf = Conf::to(upstream.address).route_called("meta", meta, keys);
    let gateway = Gateway::start(&conf.yaml()).await;
    let question = "GET /webhooks/meta?hub.mode=subscribe&hub.verify_token=a-token-for-tests&hub.challenge=1158201444 \
                    HTTP/1.1\r\nHost: a\r\n\r\n";
    for (from, status, told) in [("127.0.0.1", 200, "1158201444"), ("127.0.0.2", 403, "address\n")] {
        let mut client = Client::connect_from(from, gateway.address).await;
        client.send(question.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (status, told), "{from}");
        client.send(b"DELETE /webhooks/meta HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let method = if status == 200 { 405 } else { 403 };
        assert_eq!(client.answer().await.status, method, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_addresses_is_read_again_when_it_changes() {
    // Providers move; whoever has to restart the gateway for that does it a day late. A list that is broken on its way
    // must neither let everybody in nor shut everybody out.
    let upstream = Upstream::ok().await;
    let list = TestFile::new("list", "127.0.0.0/30\n");
    let keys = format!("replay: off, allow: {{ files: [{:?}] }}", list.name());
    let routes = Conf::to(upstream.address).route("github", &keys).yaml();
    let yaml = |listen: &str| format!("listen: [{listen}]\nadmin: 127.0.0.1:0\nwatch: 20ms\n{routes}");
    let gateway = Running::from_file(&yaml("127.0.0.1:0"), &[], &[]).await;
    let status = async |from: &str| {
        let mut client = Client::connect_from(from, gateway.address).await;
        client.send(&event(&[])).await;
        client.answer().await.status
    };
    assert_eq!((status("127.0.0.1").await, status("127.0.0.9").await), (200, 403));
    for (content, told) in [
        ("", "lists nobody"),
        ("127.0.0.0/30\nnonsense\n", "line 2: \"nonsense\" is not a network"),
    ] {
        std::fs::write(list.path(), content).unwrap();
        let log = gateway.process.stderr.has(told).await;
        assert!(log.contains("routes[0].allow.files[0]"), "{log}");
        assert_eq!((status("127.0.0.1").await, status("127.0.0.9").await), (200, 403));
    }
    std::fs::write(list.path(), "127.0.0.9 # moved\n").unwrap();
    gateway.process.stderr.has("hookward.yaml: reloaded").await;
    assert_eq!((status("127.0.0.1").await, status("127.0.0.9").await), (403, 200));
    // Nor does a gateway start on such a list.
    std::fs::write(list.path(), "# nobody\n").unwrap();
    let file = TestFile::new("hookward.yaml", yaml("127.0.0.1:8080"));
    let check = hookward(&["check", file.name()]).await;
    assert_eq!(check.code, Some(78), "{}", check.stderr);
    let told = [check.stdout, check.stderr].concat();
    assert!(told.contains("lists nobody"), "{told}");
}

/// A listener that asks for certificates of `clients`.
fn listening(server: &Identity, clients: &Authority) -> (String, TestFile) {
    let ca = TestFile::new("ca.pem", clients.pem());
    let [certificate, key] = ["pem", "key"].map(|extension| ca.beside(&format!("server.{extension}")));
    server.write(&certificate, &key);
    let tls = format!(
        "certificates: [{{ certificate: {certificate:?}, key: {key:?} }}], client_ca: {:?}",
        ca.name()
    );
    (format!("{{ address: 127.0.0.1:0, tls: {{ {tls} }} }}"), ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_hears_those_whose_certificate_has_the_name() {
    // An authority signs for many; its word that somebody is somebody is no word that he is the provider.
    let upstream = Upstream::ok().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let (listen, _files) = listening(&authority.issue("hooks.test"), &clients);
    let verified = format!("provider: github, secrets: [{{ value: {SECRET} }}]");
    let names = "replay: off, client_certificate: { names: [Sender.test, \"spiffe://sender.test/hooks\"] }";
    let conf = Conf::to(upstream.address)
        .route_called("certified", &verified, names)
        .route_called("open", &verified, "replay: off");
    let gateway = Gateway::listening(&listen, &conf.yaml()).await;
    let [dns, both, uri, nameless] = [
        clients.issue("sender.test"),
        clients.issue_as(&["other.test", "SENDER.test"], &[], ""),
        clients.issue_as(&[], &["spiffe://sender.test/hooks"], ""),
        clients.issue_as(&[], &[], "sender.test"),
    ];
    let wrong = [
        clients.issue("other.test"),
        clients.issue("*.test"),
        clients.issue("sender.test.other.test"),
        clients.issue_as(
            &["other.test"],
            &["spiffe://sender.test/other", "sender.test"],
            "sender.test",
        ),
        // The common name alone: what is in there was never checked by anybody.
        nameless,
    ];
    let good = [&dns, &both, &uri].map(|identity| (Some(identity), 200));
    let wrong = wrong.iter().map(|identity| (Some(identity), 403));
    for (identity, status) in good.into_iter().chain(wrong).chain([(None, 403)]) {
        for version in [2, 3] {
            let tls = Tls::with(&authority, Some(version), identity);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let stream = tls.connect(gateway.address, "hooks.test").await;
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                assert_eq!(resumed, kind == HandshakeKind::Resumed, "1.{version}");
                let mut client = Client::over(stream);
                for (route, status) in [("certified", status), ("open", 200), ("certified", status)] {
                    client
                        .send(&Event::of("github", "1").to(&format!("/webhooks/{route}")).bytes())
                        .await;
                    let answer = client.answer().await;
                    let told = identity.map(|identity| &identity.certificate);
                    assert_eq!(answer.status, status, "{route}, 1.{version}, {kind:?}: {told:?}");
                    assert!(status == 200 || is_refused(&answer, "certificate"));
                }
            }
        }
        let stream = Tls::with(&authority, None, identity)
            .alpn("h2")
            .connect(gateway.address, "hooks.test")
            .await;
        let mut http2 = H2::over(stream).await;
        let request = over_h2("https", &Event::of("github", "1").to("/webhooks/certified"));
        assert_eq!(http2.ask(request).await.unwrap().status(), status, "over HTTP/2");
    }
    // What a header says about certificates is a stranger's word.
    let mut client = Client::over(
        Tls::trusting(&authority, None)
            .connect(gateway.address, "hooks.test")
            .await,
    );
    let claimed = Event::of("github", "1")
        .to("/webhooks/certified")
        .with("X-Client-Cert-Name", "sender.test")
        .with("X-Forwarded-Client-Cert", "DNS=sender.test");
    client.send(&claimed.bytes()).await;
    assert!(is_refused(&client.answer().await, "certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_asks_for_is_a_mistake_of_the_configuration() {
    // A route that refuses everybody is found out by the provider, who gives up after three days.
    let upstream = Upstream::unreachable().await;
    let conf = Conf::to(upstream.address).route("github", "client_certificate: { names: [sender.test] }");
    assert!(Gateway::try_start(&conf.yaml()).await.is_none());
    for names in ["[]", "[\"\"]", "[\"CN=sender\"]"] {
        let (authority, clients) = (Authority::new(), Authority::new());
        let (listen, _files) = listening(&authority.issue("hooks.test"), &clients);
        let conf = Conf::to(upstream.address).route("github", &format!("client_certificate: {{ names: {names} }}"));
        let file = TestFile::new(
            "hookward.yaml",
            format!("listen: [{}]\n{}", listen.replace(":0,", ":8443,"), conf.yaml()),
        );
        let check = hookward(&["check", file.name()]).await;
        assert_eq!(check.code, Some(78), "{names}: {}", check.stderr);
        let told = [check.stdout, check.stderr].concat();
        assert!(told.contains("client_certificate.names"), "{told}");
    }
}
