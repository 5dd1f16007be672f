//! What changes on disk while the program runs: certificates that are renewed, secrets that are rotated, and files that
//! are no good.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{PATIENCE, genuine, get, github, until_answered};
use crate::harness::process::{Running, TestFile, hookward};
use crate::harness::{Authority, Client, SECRET, Tls, Upstream, request, route_yaml};

/// A program with TLS whose certificate is at `certificate`, beside its key.
async fn secured(upstream: &Upstream, certificate: &Path, more: &str) -> Running {
    let listen = listen(certificate, &certificate.with_extension("key"));
    let routes = route_yaml(upstream.address, "");
    Running::from_file(&format!("{listen}admin: 127.0.0.1:0\n{more}{routes}"), &[], &[]).await
}

fn listen(certificate: &Path, key: &Path) -> String {
    let pair = format!("{{ certificate: {certificate:?}, key: {key:?} }}");
    format!("listen:\n  - address: 127.0.0.1:0\n    tls: {{ certificates: [{pair}] }}\n")
}

/// The certificate that a new handshake shows.
async fn shown(gateway: &Running, tls: &Tls) -> CertificateDer<'static> {
    let stream = tls.connect(gateway.address, "hooks.test").await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_in_force_and_open_connections_go_on() {
    // Every ninety days the certificate would expire in a running process, or a renewal would cut off all senders.
    let upstream = Upstream::ok().await;
    let authority = Authority::new();
    let tls = Tls::trusting(&authority, None);
    for (watch, told) in [("off", true), ("20ms", false)] {
        let file = TestFile::new("server.pem", "");
        let key = file.path().with_extension("key");
        let [old, new, other] = [(); 3].map(|()| authority.issue("hooks.test"));
        old.write(file.path(), &key);
        let gateway = secured(&upstream, file.path(), &format!("watch: {watch}\n")).await;
        let mut open = Client::over(tls.connect(gateway.address, "hooks.test").await);
        open.send(&github(watch.as_bytes())).await;
        assert_eq!(open.answer().await.status, 200);

        // A certificate without its key: half of a renewal.
        other.write(file.path(), &file.beside("unused.key"));
        if told {
            gateway.process.signal("HUP").await;
        }
        let log = gateway.process.stderr.has("not reloaded").await;
        assert!(log.contains("listen[0].tls.certificates[0].key"), "{log}");
        assert_eq!(shown(&gateway, &tls).await, old.der(), "watch: {watch}");

        new.write(file.path(), &key);
        if told {
            assert_eq!(shown(&gateway, &tls).await, old.der(), "nobody has said anything yet");
            gateway.process.signal("HUP").await;
        }
        gateway.process.stderr.has("hookward.yaml: reloaded").await;
        assert_eq!(shown(&gateway, &tls).await, new.der(), "watch: {watch}");
        open.send(&github(format!("{watch} again").as_bytes())).await;
        assert_eq!(open.answer().await.status, 200, "watch: {watch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_reload_and_no_change_of_certificates() {
    // A list of addresses that is read again every minute would cost every sender its session; and a session that outlives
    // the authority of its client lets somebody in who was to be kept out, as nobody looks at a certificate again.
    let upstream = Upstream::ok().await;
    let [authority, clients, others] = [(); 3].map(|()| Authority::new());
    let file = TestFile::new("server.pem", "");
    let (key, ca) = (file.path().with_extension("key"), file.beside("clients.pem"));
    authority.issue("hooks.test").write(file.path(), &key);
    std::fs::write(&ca, clients.pem()).unwrap();
    let mutual = format!("}}], client_ca: {ca:?}, client_required: true }}");
    let listen = listen(file.path(), &key).replace("}] }", &mutual);
    let yaml = format!(
        "{listen}admin: 127.0.0.1:0\nwatch: off\n{}",
        route_yaml(upstream.address, "")
    );
    let gateway = Running::from_file(&yaml, &[], &[]).await;
    let own = clients.issue("sender.test");
    for version in [2, 3] {
        std::fs::write(&ca, clients.pem()).unwrap();
        reload(&gateway).await;
        let tls = Tls::with(&authority, Some(version), Some(&own));
        assert_ne!(
            session(&gateway, &tls).await,
            Some(HandshakeKind::Resumed),
            "1.{version}"
        );
        reload(&gateway).await;
        assert_eq!(
            session(&gateway, &tls).await,
            Some(HandshakeKind::Resumed),
            "1.{version}"
        );
        // Renewed by the same authority: what was shown before is not to be believed any longer.
        authority.issue("hooks.test").write(file.path(), &key);
        reload(&gateway).await;
        let again = session(&gateway, &tls).await;
        assert!(
            again.is_some_and(|kind| kind != HandshakeKind::Resumed),
            "1.{version}: {again:?}"
        );
        std::fs::write(&ca, others.pem()).unwrap();
        reload(&gateway).await;
        assert_eq!(session(&gateway, &tls).await, None, "1.{version}");
    }
}

/// Has the files read again, and waits until they are.
async fn reload(gateway: &Running) {
    let done = |text: &str| text.matches("hookward.yaml: reloaded").count();
    let before = done(&gateway.process.stderr.text());
    gateway.process.signal("HUP").await;
    gateway
        .process
        .stderr
        .until("reloaded", |text| done(text) > before)
        .await;
}

/// How a handshake went whose connection then carried an event; `None` when there was no answer.
async fn session(gateway: &Running, tls: &Tls) -> Option<HandshakeKind> {
    let stream = Client::connect(gateway.address).await.into_stream();
    // In 1.3 the client is done before the gateway has looked at its certificate.
    let mut client = Client::over(tls.over(stream, "hooks.test").await.ok()?);
    let kind = client.stream().get_ref().1.handshake_kind();
    client.send(&github(b"{}")).await;
    client.whole_answer().await?;
    kind
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_try_that_is_proposed_goes_where_it_can_succeed() {
    // `hookward send` speaks plain HTTP: sent to the listener with TLS, the first try of a newcomer is an error.
    let authority = Authority::new();
    let file = TestFile::new("server.pem", "");
    let key = file.path().with_extension("key");
    authority.issue("hooks.test").write(file.path(), &key);
    let listen = listen(file.path(), &key);
    let rest = format!("admin: 127.0.0.1:0\n{}", route_yaml(([127, 0, 0, 1], 1).into(), ""));
    let yaml = format!("{listen}  - 127.0.0.1:0\n{rest}");
    let both = Running::from_file(&yaml, &[], &[]).await;
    let banner = both.process.stderr.has("--forge").await;
    let plain = banner
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("webhooks   http://"));
    let proposed = format!("--url http://{}/webhooks/github", plain.unwrap());
    assert!(banner.contains(&proposed), "{banner}");
    let secured = Running::from_file(&format!("{listen}{rest}"), &[], &[]).await;
    until_answered(secured.admin, "/readyz", 200).await;
    assert!(
        !secured.process.stderr.text().contains("--url"),
        "{}",
        secured.process.said()
    );
}

/// Puts the `n`-th secret where `current` leads, as Kubernetes does it: a new link is moved over the old one.
fn swap(folder: &Path, n: usize) {
    let version = folder.join(format!("version-{n}"));
    std::fs::create_dir_all(&version).unwrap();
    std::fs::write(version.join("stays"), SECRET).unwrap();
    std::fs::write(version.join("changes"), secret(n)).unwrap();
    symlink(&version, folder.join("next")).unwrap();
    std::fs::rename(folder.join("next"), folder.join("current")).unwrap();
}

fn secret(n: usize) -> String {
    format!("a-secret-of-version-{n}")
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_swapped_under_load_without_a_wrong_verdict() {
    // A rotation at noon: not one genuine event may be refused meanwhile, and not one forgery let in.
    let swaps = std::env::var("HOOKWARD_SWAPS").map_or(4, |count| count.parse().unwrap());
    let upstream = Upstream::ok().await;
    let marker = TestFile::new("marker", "");
    let folder = marker.path().parent().unwrap().to_owned();
    swap(&folder, 0);
    let files = ["stays", "changes"].map(|name| format!("{{ file: {:?} }}", folder.join("current").join(name)));
    let yaml = route_yaml(
        upstream.address,
        "replay: off\nlimits: { rate: 100000/s, burst: 100000 }",
    );
    let yaml = yaml.replace(&format!("{{ value: {SECRET} }}"), &files.join(", "));
    let gateway = Arc::new(Running::start(&format!("watch: 20ms\n{yaml}")).await);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| tokio::spawn(traffic(Arc::clone(&gateway), Arc::clone(&over))))
        .collect();
    let status = async |n: usize| {
        let event = genuine("github", &secret(n), "/webhooks/github", "", b"{}");
        request(gateway.address, &event).await.status
    };
    for n in 1..=swaps {
        assert_eq!((status(n - 1).await, status(n).await), (200, 401));
        swap(&folder, n);
        let taken_over = async {
            while status(n).await != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let taken_over = tokio::time::timeout(PATIENCE, taken_over).await;
        taken_over.unwrap_or_else(|_| panic!("version {n} never came\n{}", gateway.process.said()));
        assert_eq!(status(n - 1).await, 401, "the old secret");
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > swaps / 2, "hardly any traffic");
    }
    let reloads = gateway.metric("hookward_config_reloads_total{result=\"ok\"}").await;
    assert_eq!(reloads, swaps as f64, "each change counts once");
}

/// Genuine events and forgeries until it is `over`; how many of each.
async fn traffic(gateway: Arc<Running>, over: Arc<AtomicBool>) -> usize {
    let forged = genuine("github", "a-secret-of-nobody", "/webhooks/github", "", b"{}");
    let mut client = Client::connect(gateway.address).await;
    let mut sent = 0;
    while !over.load(Ordering::SeqCst) {
        client.send(&github(b"{}")).await;
        assert_eq!(client.answer().await.status, 200, "genuine");
        client.send(&forged).await;
        assert_eq!(client.answer().await.status, 401, "forged");
        sent += 1;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_watched_and_so_are_files_that_it_comes_to_name() {
    // A secret that was added last week is rotated, and nobody notices that the process never looked at it.
    let upstream = Upstream::ok().await;
    let secret = TestFile::new("secret", "the-first-secret-of-all");
    let yaml = format!("watch: 20ms\n{}", route_yaml(upstream.address, "replay: off"));
    let gateway = Running::start(&yaml).await;
    let named = format!("{{ file: {:?} }}", secret.path());
    gateway.rewrite(&yaml.replace(&format!("{{ value: {SECRET} }}"), &named));
    for secret_in_force in ["the-first-secret-of-all", "the-second-secret-of-all"] {
        std::fs::write(secret.path(), secret_in_force).unwrap();
        let event = genuine("github", secret_in_force, "/webhooks/github", "", b"{}");
        let taken_over = async {
            while request(gateway.address, &event).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let taken_over = tokio::time::timeout(PATIENCE, taken_over).await;
        taken_over.unwrap_or_else(|_| panic!("{secret_in_force}\n{}", gateway.process.said()));
    }
    assert!(
        get(gateway.admin, "/metrics")
            .await
            .text()
            .contains("hookward_config_last_reload_successful 1\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_which_file_of_tls_is_no_good() {
    // A certificate that cannot be used is found before the deployment, not by the first sender after it.
    let authority = Authority::new();
    let certificate = TestFile::new("server.pem", "");
    let key = certificate.path().with_extension("key");
    authority.issue("hooks.test").write(certificate.path(), &key);
    let [absent, other, no_pem, chain] =
        ["absent.pem", "other.key", "no.pem", "other.pem"].map(|name| certificate.beside(name));
    authority.issue("hooks.test").write(&chain, &other);
    std::fs::write(&no_pem, "no certificate at all\n").unwrap();
    let pem = certificate.path();
    let rows = [
        (pem, &*key, None),
        (&*absent, &*key, Some(("certificate", "absent.pem: "))),
        (pem, &*absent, Some(("key", "absent.pem: "))),
        (&*no_pem, &*key, Some(("certificate", "no.pem: has no certificate"))),
        (pem, &*no_pem, Some(("key", "no.pem: "))),
        (pem, &*other, Some(("key", "other.key is not the key of "))),
    ];
    for (certificate, key, expected) in rows {
        let yaml = listen(certificate, key) + "upstreams: { app: { sample: true } }\nroutes: []\npassthrough: app\n";
        let file = TestFile::new("tls.yaml", yaml);
        let ended = hookward(&["check", file.name()]).await;
        let Some((place, problem)) = expected else {
            assert_eq!(ended.code, Some(0), "{ended:?}");
            continue;
        };
        assert_eq!(ended.code, Some(78), "{ended:?}");
        let told = format!("tls.yaml:3: listen[0].tls.certificates[0].{place}: ");
        assert!(
            ended.stdout.contains(&told) && ended.stdout.contains(problem),
            "{ended:?}"
        );
    }
}
