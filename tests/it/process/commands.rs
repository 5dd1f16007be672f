//! `hookward providers`, `sign` and `send`.

use std::time::Duration;

use hookward::clock::Clock;
use hookward::providers::builtin;

use super::{QUICKSTART, quickstart};
use crate::harness::process::{Ended, HOOKWARD, Process, TestFile, hookward, run};

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_listed_and_described() {
    // Nobody configures what they cannot find.
    let list = hookward(&["providers"]).await;
    let ids: Vec<_> = list.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(ids, builtin().ids().collect::<Vec<_>>());
    let stripe = hookward(&["providers", "stripe"]).await;
    assert_eq!(stripe.code, Some(0));
    for words in [
        "stripe (Stripe)",
        "https://docs.stripe.com/webhooks/signature",
        "stripe-signature",
        "signed within 300 s",
    ] {
        assert!(stripe.stdout.contains(words), "{words}: {}", stripe.stdout);
    }
    let mistyped = hookward(&["providers", "githob"]).await;
    assert_eq!((mistyped.code, mistyped.stdout.as_str()), (Some(1), ""));
    assert!(mistyped.stderr.contains("did you mean github?"), "{}", mistyped.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_found_by_what_is_known_of_them() {
    // Among hundreds, a list alone is no answer.
    let filtered = hookward(&["providers", "--filter", "ED25519"]).await;
    assert!(
        filtered.stdout.lines().count() >= 3 && filtered.stdout.contains("discord"),
        "{}",
        filtered.stdout
    );
    let none = hookward(&["providers", "--filter", "no such thing"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), ""));
    let json = hookward(&["providers", "--proves", "authenticated", "--json"]).await;
    let json: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).unwrap();
    assert!(json.len() > 30 && json.iter().all(|line| line["strength"] == "authenticated"));
    let one = hookward(&["providers", "meta", "--json"]).await;
    let one: serde_json::Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(
        (&one["signs_with"], &one["settings"][0]),
        (&"hmac-sha256".into(), &"verify_token".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_to_paste_is_one() {
    // The first thing that somebody tries would be a list of problems; of Recharge, whose events may be two days old, it
    // was. What only an operator knows is left to him: secrets, the place for one that comes, ids of his accounts.
    let mut whole = "listen: [127.0.0.1:1]\nupstreams: { app: { servers: [127.0.0.1:1] } }\nroutes:\n".to_owned();
    for provider in builtin().iter() {
        let shown = hookward(&["providers", &provider.id]).await;
        let (_, route) = shown.stdout.split_once("A route to paste:\n\n").unwrap();
        let file: serde_yaml::Value = serde_yaml::from_str(&format!("routes:\n{route}")).unwrap();
        let keys = file["routes"][0].as_mapping().unwrap();
        assert_eq!(keys["provider"], provider.id);
        whole.push_str(route);
        assert_eq!(
            keys.contains_key("public_url"),
            provider.scheme.needs_public_url() || provider.handshakes.use_url()
        );
        assert_eq!(
            keys.contains_key("settings"),
            !provider.settings.is_empty(),
            "{}",
            provider.id
        );
    }
    let file = TestFile::new("pasted.yaml", &whole);
    let ended = hookward(&["check", file.name()]).await;
    let told = [ended.stdout, ended.stderr].concat();
    let problems: Vec<_> = told.lines().filter(|line| line.contains("routes[")).collect();
    assert!(problems.len() >= 250, "{told}");
    let is_open = |line: &&str| {
        let own = [
            "secrets[0]: environment variable",
            "register.into: is in a folder",
            "settings: setting \"",
            "replay: is off, as ",
        ];
        own.iter().any(|own| line.contains(own))
    };
    let others: Vec<_> = problems.iter().filter(|line| !is_open(line)).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_about_providers_are_what_the_program_says() {
    // The documentation would promise providers that are not there, or hide what they prove.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let page = hookward(&["providers", "--markdown"]).await.stdout;
    let table = hookward(&["providers", "--summary"]).await.stdout;
    let (begin, end) = ("`hookward providers --summary` -->\n", "<!-- end of providers -->");
    let readme = std::fs::read_to_string(format!("{root}README.md")).unwrap();
    let (before, rest) = readme.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let pages = [
        ("docs/providers.md", page),
        ("README.md", format!("{before}{begin}{table}{end}{after}")),
    ];
    for (name, wanted) in pages {
        let path = format!("{root}{name}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == wanted,
            "{name} is not what the program says; UPDATE=1 writes it"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    // `hookward providers | head -1` must not end in a panic and a report of its insides.
    let body = TestFile::new("body.json", "{}");
    let sign = [
        "sign",
        "github",
        "--secret",
        "an-example-of-a-secret",
        "--body",
        body.name(),
    ];
    let table: [(&[&str], i32); 4] = [
        (&["providers"], 0),
        (&["providers", "stripe"], 0),
        (&["check", body.name()], 78),
        (&sign, 0),
    ];
    for (args, code) in table {
        let mut process = Process::unread(HOOKWARD, args).await;
        assert_eq!(process.end().await, Some(code), "{args:?}");
        assert_eq!(process.stderr.text(), "", "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_prints_what_the_providers_document() {
    // Whoever debugs a backend with a wrong example signature looks for the mistake in the backend.
    // Source of the first: docs.github.com, "Validating webhook deliveries", testing the webhook payload validation.
    // The others were computed with `openssl dgst -hmac` over `1700000000.{}` and its like.
    let hello = TestFile::new("hello", "Hello, World!");
    let empty = TestFile::new("empty.json", "{}");
    let secret = "it-is-a-secret-to-everybody";
    let table: [(&str, &str, &TestFile, &str); 5] = [
        (
            "github",
            "It's a Secret to Everybody",
            &hello,
            "x-hub-signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\n",
        ),
        (
            "stripe",
            secret,
            &empty,
            "stripe-signature: t=1700000000,v1=08a5e8a85b89428c5f7bc7a01bab41bab1f8208d38b92569b03b2be57a7be2da\n",
        ),
        (
            "slack",
            secret,
            &empty,
            "x-slack-request-timestamp: 1700000000\nx-slack-signature: v0=50cc463ae26a9b119a1f6832bcc2d420fc073807e3ff0b27b7d1ba2ea55ac7ce\n",
        ),
        (
            "shopify",
            secret,
            &empty,
            "x-shopify-hmac-sha256: zjAF6XLnaZMhHCIjhpeTlZtaAFcV+RmEKNssse4/NV0=\n",
        ),
        (
            "standard-webhooks",
            "whsec_ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u",
            &empty,
            "webhook-id: msg_1\nwebhook-timestamp: 1700000000\nwebhook-signature: v1,y8DdL6cAPqdDkp9+hsi8duxYi4o2Br7WdCSZU18pBLE=\n",
        ),
    ];
    for (provider, secret, body, expected) in table {
        let fixed = ["--timestamp", "1700000000", "--id", "msg_1"];
        let args = ["sign", provider, "--secret", secret, "--body", body.name()];
        let ended = hookward(&[&args[..], &fixed].concat()).await;
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), expected),
            "{provider}: {ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_command_that_sign_prints_is_accepted() {
    // A command that a shell splits in the wrong place signs one body and sends another.
    let found = run("sh", &["-c", "command -v curl"], b"").await;
    assert_eq!(found.code, Some(0), "curl is missing: `make test` installs it");
    let gateway = quickstart().await;
    let body = TestFile::new(
        "it's a $HOME `body`.json",
        "{\"id\":\"evt_1\", \"text\":\"naïve\\n\"}\n",
    );
    for (path, provider, secret) in QUICKSTART {
        let url = format!("http://{}{path}", gateway.address);
        let args = [
            "sign",
            provider,
            "--secret",
            secret,
            "--body",
            body.name(),
            "--curl",
            "--url",
            &url,
        ];
        let command = hookward(&args).await;
        assert_eq!(command.code, Some(0), "{command:?}");
        assert!(command.stdout.starts_with("curl "), "{command:?}");
        assert!(!command.stdout.contains(secret), "{command:?}");
        let ended = run("sh", &["-c", &command.stdout], b"").await;
        assert!(ended.stdout.starts_with("HTTP/1.1 200 OK"), "{provider}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_shows_what_the_gateway_does_with_good_and_bad_requests() {
    // It is how a newcomer learns whether the gateway protects anything.
    let gateway = quickstart().await;
    for (path, provider, secret) in QUICKSTART {
        let url = format!("http://{}{path}", gateway.address);
        let send = |fault: &'static str| {
            let mut args = vec!["send", provider, "--url", &url, "--secret", secret];
            args.extend((!fault.is_empty()).then_some(fault));
            let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
            async move { run(HOOKWARD, &args, b"").await }
        };
        let count = |ended: &Ended, words: &str| ended.stdout.matches(words).count();
        let stamped = !matches!(provider, "github" | "shopify");

        let good = send("").await;
        assert_eq!(good.code, Some(0), "{good:?}");
        assert_eq!(count(&good, "HTTP/1.1 200 OK"), 1, "{good:?}");
        assert_eq!(count(&good, "-> 200 in "), 1, "{good:?}");

        let forged = send("--forge").await;
        assert_eq!(forged.code, Some(0), "{forged:?}");
        assert_eq!(count(&forged, "HTTP/1.1 401 Unauthorized"), 1, "{forged:?}");
        assert_eq!(count(&forged, "expected 401"), 1, "{forged:?}");

        let repeated = send("--replay").await;
        assert_eq!(repeated.code, Some(0), "{repeated:?}");
        assert_eq!(count(&repeated, "-> 200 in "), 2, "{repeated:?}");
        assert_eq!(count(&repeated, "expected 200 again"), 1, "{repeated:?}");

        let stale = send("--stale").await;
        assert_eq!(stale.code, Some(0), "{stale:?}");
        assert_eq!(count(&stale, "-> 401 in "), usize::from(stamped), "{stale:?}");
        assert_eq!(
            count(&stale, "signs no time, so nothing can be stale"),
            usize::from(!stamped),
            "{stale:?}"
        );
        for ended in [good, forged, repeated, stale] {
            assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret));
        }
        // Good, replayed, and stale where that means nothing: each arrived once.
        let arrived = format!("sample backend: POST {path} ");
        let expected = if stamped { 2 } else { 3 };
        let out = &gateway.process.stdout;
        out.until("its events", |text| text.matches(&arrived).count() >= expected)
            .await;
        assert_eq!(out.text().matches(&arrived).count(), expected, "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_fails_when_the_answer_is_not_the_expected_one() {
    // A smoke test in a deployment script relies on the exit code alone.
    let gateway = quickstart().await;
    let url = format!("http://{}/webhooks/github", gateway.address);
    let nowhere = format!("http://{}/nowhere", gateway.address);
    let own = TestFile::new("own.json", "{\"own\":true}");
    let good = QUICKSTART[0].2;
    let wrong = "another-secret-than-configured";
    let table: [(&[&str], i32, &str); 9] = [
        (&["github", "--url", &url, "--secret", wrong], 1, "-> 401 in "),
        (&["github", "--url", &nowhere, "--secret", good], 1, "-> 404 in "),
        // A gateway that says 404 to a forgery has not been tested for forgeries.
        (
            &["github", "--url", &nowhere, "--secret", good, "--forge"],
            1,
            "-> 404 in ",
        ),
        (
            &["github", "--url", &url, "--secret", good, "--body", own.name()],
            0,
            "-> 200 in ",
        ),
        (
            &["github", "--url", "http://127.0.0.1:1/", "--secret", good],
            1,
            "cannot connect to 127.0.0.1:1",
        ),
        (
            &["github", "--url", "https://127.0.0.1/", "--secret", good],
            1,
            "must begin with http://",
        ),
        (
            &["gitlab-or-so", "--url", &url, "--secret", good],
            1,
            "there is no provider called",
        ),
        (
            &["github", "--url", &url],
            2,
            "--secret <TEXT>|--secret-file <FILE>|--secret-env <NAME>",
        ),
        (
            &["github", "--url", &url, "--secret", good, "--forge", "--stale"],
            2,
            "cannot be used with",
        ),
    ];
    for (args, code, told) in table {
        let ended = hookward(&[&["send"], args].concat()).await;
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!((ended.stdout + &ended.stderr).contains(told), "{args:?}");
    }
    gateway.process.stdout.has("12 bytes: {\"own\":true}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_signing_may_come_from_a_file_or_a_variable() {
    // On the command line everybody on the machine can read it.
    let body = TestFile::new("empty.json", "{}");
    let secret = TestFile::new("secret", "an-example-of-a-secret\n");
    let sign = |how: [&str; 2]| {
        let args: Vec<_> = ["sign", "github", "--body", body.name()]
            .into_iter()
            .chain(how)
            .map(str::to_owned)
            .collect();
        async move {
            let mut process = Process::start(HOOKWARD, &args, &[("SIGNING", "an-example-of-a-secret")]);
            let code = process.end().await;
            (code, process.stdout.text())
        }
    };
    let given = sign(["--secret", "an-example-of-a-secret"]).await;
    assert_eq!(given.0, Some(0));
    assert!(given.1.starts_with("x-hub-signature-256: sha256="));
    assert_eq!(sign(["--secret-file", secret.name()]).await, given);
    assert_eq!(sign(["--secret-env", "SIGNING"]).await, given);
    assert_eq!(sign(["--secret-env", "NOT_SET"]).await, (Some(1), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_catalogue_is_read_in_no_time() {
    // A gateway that restarts is away for as long as it reads. The program reads all providers here, and a start only those
    // that it has routes for: 50 ms, five times as much for a build that is not optimised, and the best of many, since
    // other tests run meanwhile.
    let clock = Clock::system();
    let mut best = Duration::MAX;
    for _ in 0..30 {
        let started = clock.moment();
        let ended = hookward(&["providers", "--json"]).await;
        best = best.min(clock.moment().since(started));
        assert_eq!(ended.code, Some(0));
    }
    let bound = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 50 });
    assert!(best < bound, "{best:?}");
}
