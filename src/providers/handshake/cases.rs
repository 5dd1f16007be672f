//! Handshakes of every kind: what is answered, what is not, and what cannot be configured.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::{Asked, HandshakeReply, Means, Met};
use crate::clock::UnixMillis;
use crate::providers::{Provider, ProviderFile};
use crate::secret::Secret;
use crate::signature::{Head, KeyedSecret, PublicUrl, Settings, Verifier, VerifierOptions, sign};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const KEY: &str = "a-secret-for-tests-only";

const SCHEME: &str = "
scheme:
  algorithm: hmac-sha256
  key: utf8
  message: \"{body}\"
  signature: { header: sig, encoding: hex }
";

/// A route of a provider with these handshakes.
struct Route {
    provider: Provider,
    verifier: Verifier,
}

impl Route {
    fn of(handshakes: &str) -> Route {
        let provider = built(handshakes).unwrap();
        let keyed = |id: &str, text: &str, until| KeyedSecret {
            id: id.into(),
            secret: Secret::new(text).unwrap(),
            until,
        };
        // The first has ended, the second is the one to compute with.
        let keys = vec![
            keyed("old", "an-old-secret-of-the-route", Some(NOW)),
            keyed("new", KEY, None),
        ];
        let mut settings = Settings::default();
        settings.insert("token", Secret::new("vt").unwrap()).unwrap();
        settings
            .insert("code", Secret::new("71745723-d031-455c-bfa5-f90d11b4f20a").unwrap())
            .unwrap();
        let options = VerifierOptions {
            public_url: PublicUrl::parse("https://hooks.example.com/ebay").ok(),
            settings,
            ..VerifierOptions::default()
        };
        let verifier = Verifier::new(Arc::clone(&provider.scheme), keys, options).unwrap();
        Route { provider, verifier }
    }

    fn means(&self) -> Means<'_> {
        Means {
            verifier: &self.verifier,
            now: NOW,
        }
    }

    /// An unsigned request, on a route that takes POST.
    fn unsigned(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Met {
        let headers = header_map(headers);
        let asked = Asked {
            method: &method,
            target,
            headers: &headers,
            body: body.as_bytes(),
        };
        self.provider
            .handshakes
            .unsigned(&asked, method == Method::POST, &self.means())
    }

    /// The answer to a GET, `None` when there is none.
    fn get(&self, target: &str) -> Option<String> {
        text(self.unsigned(Method::GET, target, &[], ""))
    }

    /// The answer to a signed POST.
    fn signed(&self, headers: &[(&str, &str)], body: &str) -> Option<HandshakeReply> {
        let mut headers = header_map(headers);
        for (name, value) in sign(
            &self.provider.scheme,
            &Secret::new(KEY).unwrap(),
            "",
            NOW,
            body.as_bytes(),
        )
        .unwrap()
        {
            headers.insert(name, value.try_into().unwrap());
        }
        let asked = Asked {
            method: &Method::POST,
            target: "/",
            headers: &headers,
            body: body.as_bytes(),
        };
        let head = Head {
            method: asked.method,
            target: asked.target,
            headers: asked.headers,
        };
        let mut check = self.verifier.begin(head, NOW);
        check.update(asked.body);
        let proof = check.finish(asked.body).unwrap().without_fetching().unwrap();
        self.provider.handshakes.signed(&asked, &proof, &self.means())
    }
}

fn built(handshakes: &str) -> Result<Provider, crate::signature::SchemeError> {
    // None may be explained that nothing reads.
    let read = |name: &&str| {
        handshakes.contains(&format!("setting: {name}")) || handshakes.contains(&format!("setting:{name}"))
    };
    let settings = ["token", "code"]
        .into_iter()
        .filter(read)
        .map(|name| format!("{name}: what it is"));
    let settings = settings.collect::<Vec<_>>().join(", ");
    let yaml = format!("{SCHEME}settings: {{ {settings} }}\nhandshake:\n{handshakes}");
    Provider::own("mine", &serde_yaml::from_str::<ProviderFile>(&yaml).unwrap())
}

fn header_map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn text(met: Met) -> Option<String> {
    match met {
        Met::Reply(reply) => Some(String::from_utf8(reply.body.to_vec()).unwrap()),
        _ => None,
    }
}

const GET_CHALLENGE: &str = "
  - when: [{ query: challenge, present: true }, { method: GET }]
    verify: none
    answer: { text: \"{query:challenge}\" }
";

const META: &str = "
  - when: [{ method: GET }, { query: hub.mode, equals: subscribe }]
    verify: { query: hub.verify_token, setting: token }
    answer: { text: \"{query:hub.challenge}\" }
";

const CRC: &str = "
  - when: [{ method: GET }, { query: crc_token, present: true }]
    verify: none
    compute: { algorithm: hmac-sha256, message: \"{query:crc_token}\", encoding: base64 }
    answer: { json: { response_token: \"sha256={computed}\" } }
";

const ANY_VALUE: &str = "
  - when: { header: x-ask, present: true }
    verify: none
    answer: { headers: { x-answer: \"{header:x-ask}\" }, json: { a: \"{form:a}\" } }
  - when: { form: a, present: true }
    verify: none
    answer: { json: { a: \"{form:a}\" } }
";

#[test]
fn a_challenge_is_decoded_like_a_form_and_sent_back_as_text() {
    // The provider compares every letter and does not register the address.
    let route = Route::of(GET_CHALLENGE);
    let rows = [
        ("/x?challenge=abc123", Some("abc123")),
        ("/x?a=b&challenge=abc%2B1", Some("abc+1")),
        ("/x?challenge=Validation%3a+Testing+it", Some("Validation: Testing it")),
        ("/x?%63hallenge=x", Some("x")),
        // Of two values one might be judged and the other sent back.
        ("/x?challenge=a&challenge=a", None),
        ("/x?challenge=a&%63hallenge=b", None),
        ("/x?challenge=", None),
        ("/x?challenge", None),
        ("/x?Challenge=a", None),
        ("/x", None),
        ("/x?challenge=%", None),
        ("/x?challenge=%4", None),
        ("/x?challenge=%zz", None),
        ("/x?challenge=%ff", None),
        ("/x?challenge=caf%C3%A9", None),
        ("/x?challenge=a%00", None),
        ("/x?challenge=a%0d%0aset-cookie:+x", None),
        ("/x?challenge=%20a", None),
        ("/x?challenge=%3Cscript%3E", None),
        ("/x?challenge=a%3E", None),
    ];
    for (target, expected) in rows {
        assert_eq!(route.get(target).as_deref(), expected, "{target}");
    }
    let long = |bytes: usize| route.get(&format!("/x?challenge={}", "a".repeat(bytes)));
    assert_eq!((long(4096).map(|text| text.len()), long(4097)), (Some(4096), None));
    // The same question by another method is another question.
    for method in [Method::POST, Method::HEAD, Method::PUT] {
        let met = route.unsigned(method.clone(), "/x?challenge=a", &[], "");
        assert!(matches!(met, Met::Nothing), "{method}");
    }
}

#[test]
fn only_who_knows_the_setting_is_answered() {
    // Whoever finds the address could subscribe it to a feed of their own.
    let route = Route::of(META);
    let asked = |token: &str| {
        route.unsigned(
            Method::GET,
            &format!("/?hub.mode=subscribe&hub.challenge=1158201444{token}"),
            &[],
            "",
        )
    };
    assert_eq!(text(asked("&hub.verify_token=vt")).as_deref(), Some("1158201444"));
    for wrong in [
        "",
        "&hub.verify_token=",
        "&hub.verify_token=v",
        "&hub.verify_token=vtt",
        "&hub.verify_token=VT",
    ] {
        assert!(matches!(asked(wrong), Met::Refused), "{wrong}");
    }
    assert!(matches!(
        asked("&hub.verify_token=vt&hub.verify_token=vt"),
        Met::Refused
    ));
    let other = route.unsigned(
        Method::GET,
        "/?hub.mode=unsubscribe&hub.verify_token=vt&hub.challenge=1",
        &[],
        "",
    );
    assert!(matches!(other, Met::Nothing));
}

#[test]
fn a_setting_that_is_not_there_is_known_to_nobody() {
    // An empty verify token would be one that everybody knows.
    let provider = built(META).unwrap();
    let keys = vec![KeyedSecret {
        id: "a".into(),
        secret: Secret::new(KEY).unwrap(),
        until: None,
    }];
    let verifier = Verifier::new(Arc::clone(&provider.scheme), keys, VerifierOptions::default()).unwrap();
    let route = Route { provider, verifier };
    for token in ["", "&hub.verify_token="] {
        let target = format!("/?hub.mode=subscribe&hub.challenge=1{token}");
        assert!(
            matches!(route.unsigned(Method::GET, &target, &[], ""), Met::Refused),
            "{token}"
        );
    }
}

#[test]
fn a_lent_mac_is_the_one_that_the_provider_computes() {
    // A wrong answer ends the subscription, hourly.
    let route = Route::of(CRC);
    // printf foo | openssl dgst -sha256 -hmac a-secret-for-tests-only -binary | base64
    let expected = r#"{"response_token":"sha256=O/XDgO/jNZe76xxji0n2bU9vsb70B9PimEEQXtWvrCc="}"#;
    assert_eq!(route.get("/x?crc_token=foo").as_deref(), Some(expected));
}

#[test]
fn no_event_is_signed_for_a_stranger() {
    // A body sent as a challenge would come back with its signature, and be forwarded as an event next.
    let route = Route::of(CRC);
    for body in [
        "{}",
        "{\"a\":1}",
        "[1]",
        "\"x\"",
        "a=1&b=2",
        "a b",
        "<x/>",
        "(1)",
        "a,b",
    ] {
        let encoded: String = body.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(route.get(&format!("/x?crc_token={encoded}")), None, "{body}");
        assert!(!route.provider.handshakes.could_have_lent(body.as_bytes()), "{body}");
    }
    for body in ["1", "true", "foo", "a=1", "2.5", "v0:1700000000:1", ""] {
        assert!(route.provider.handshakes.could_have_lent(body.as_bytes()), "{body}");
        assert!(
            !Route::of(META).provider.handshakes.could_have_lent(body.as_bytes()),
            "{body}"
        );
    }
    assert_eq!(route.get(&format!("/x?crc_token={}", "a".repeat(513))), None);
}

proptest! {
    #[test]
    fn whatever_is_asked_only_printable_text_comes_back(query in "[ -~]{0,40}", value in "\\PC{0,20}", body in "\\PC{0,40}") {
        // One byte that a browser or a proxy takes for something else is enough.
        let route = Route::of(&format!("{GET_CHALLENGE}{META}{CRC}{ANY_VALUE}"));
        let query = format!("/?challenge={value}&hub.mode=subscribe&hub.verify_token=vt&hub.challenge={query}");
        for method in [Method::GET, Method::POST] {
            for target in [query.as_str(), "/?crc_token=%3c", "/?%"] {
                if let Met::Reply(reply) = route.unsigned(method.clone(), target, &[("x-ask", &value)], &body) {
                    let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
                    let headers = reply.headers.iter().flat_map(|(_, value)| value.as_bytes());
                    prop_assert!(reply.body.iter().chain(headers).all(|byte| plain(byte) && !b"<>".contains(byte)));
                }
            }
        }
    }

    #[test]
    fn what_is_lent_is_never_taken_for_an_event(body in "[ -~]{0,12}", before in "[ -~]{0,3}", after in "[ -~]{0,3}") {
        // Whatever surrounds the body in the signed bytes, a lent MAC over them would make it an event.
        let route = Route::of(CRC);
        let signed = format!("{before}{body}{after}");
        let encoded: String = signed.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let lent = route.get(&format!("/x?crc_token={encoded}")).is_some();
        prop_assert!(!lent || route.provider.handshakes.could_have_lent(body.as_bytes()), "{signed:?}");
    }
}

#[test]
fn a_digest_is_made_with_settings_and_the_public_url() {
    // eBay disables a subscription whose challenge is answered with another digest.
    let route = Route::of(
        "
  - when: [{ method: GET }, { query: challenge_code, present: true }]
    verify: none
    compute: { algorithm: sha256, message: \"{query:challenge_code}{setting:code}{url}\", encoding: hex }
    answer: { json: { challengeResponse: \"{computed}\" } }
",
    );
    let expected = r#"{"challengeResponse":"b0cb85db424f4b439a1167ef6e2b241818bd1d4bfb25da0a1c98af456a44911f"}"#;
    let target = "/ebay?challenge_code=71745723-d031-455c-bfa5-f90d11b4f20a";
    assert_eq!(route.get(target).as_deref(), Some(expected));
    assert!(route.provider.handshakes.use_url());
    assert_eq!(route.provider.handshakes.settings().collect::<Vec<_>>(), ["code"]);
}

#[test]
fn a_native_challenge_is_the_providers_own() {
    // Braintree does not take the address; or signs whatever a stranger sends.
    let yaml = "
scheme: { native: braintree }
settings: { public_key: in the control panel }
handshake:
  - when: [{ method: GET }, { query: bt_challenge, present: true }]
    verify: none
    compute: { algorithm: native, message: \"{query:bt_challenge}\" }
    answer: { text: \"{computed}\" }
";
    let provider = Provider::own("mine", &serde_yaml::from_str::<ProviderFile>(yaml).unwrap()).unwrap();
    let mut settings = Settings::default();
    let public_key = Secret::new("integration_public_key").unwrap();
    settings.insert("public_key", public_key).unwrap();
    let options = VerifierOptions {
        settings,
        ..VerifierOptions::default()
    };
    let keys = vec![KeyedSecret {
        id: "a".into(),
        secret: Secret::new("integration_private_key").unwrap(),
        until: None,
    }];
    let verifier = Verifier::new(Arc::clone(&provider.scheme), keys, options).unwrap();
    let route = Route { provider, verifier };
    // The published pair of the library for Python.
    let expected = "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4";
    let target = "/?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53";
    assert_eq!(route.get(target).as_deref(), Some(expected));
    for other in ["20F9F8ED05F77439FE955C977E4C8A53", "20f9f8ed05f77439fe9", "PHhtbC8+"] {
        assert_eq!(route.get(&format!("/?bt_challenge={other}")), None, "{other}");
    }
    assert!(built(&CRC.replace("hmac-sha256", "native").replace(", encoding: base64", "")).is_err());
}

const SLACK: &str = "
  - when: { json: type, equals: url_verification }
    answer: { text: \"{json:challenge}\" }
";

#[test]
fn a_signed_challenge_is_answered_under_its_proof_alone() {
    // An unsigned request would have its own text reflected from the application's address.
    let route = Route::of(SLACK);
    let body = r#"{"type":"url_verification","token":"x","challenge":"3eZbrw1aBm2r<&>"}"#;
    assert!(matches!(route.unsigned(Method::POST, "/", &[], body), Met::Nothing));
    let reply = route.signed(&[], body).unwrap();
    assert_eq!((reply.status, reply.content_type), (200, "text/plain; charset=utf-8"));
    assert_eq!((&*reply.label, &reply.body[..]), ("type", &b"3eZbrw1aBm2r<&>"[..]));
}

#[test]
fn an_event_is_not_mistaken_for_a_challenge() {
    // An event that is answered at the edge is lost.
    let route = Route::of(SLACK);
    let long = format!(r#"{{"type":"url_verification","challenge":"{}"}}"#, "x".repeat(4097));
    let bodies = [
        r#"{"type":"event_callback","challenge":"x"}"#,
        r#"{"type":"url_verification"}"#,
        r#"{"type":"url_verification","challenge":""}"#,
        r#"{"type":"url_verification","challenge":"a\nb"}"#,
        r#"{"type":"url_verification","challenge":"<script>","challenge":"x"}"#,
        r#"{"type":"url_verification","challenge":{"x":1}}"#,
        r#"{"event":{"type":"url_verification"},"challenge":"x"}"#,
        "type=url_verification&challenge=x",
        long.as_str(),
    ];
    for body in bodies {
        assert_eq!(route.signed(&[], body), None, "{body:.60}");
    }
    assert_eq!(route.signed(&[], &long.replacen('x', "", 1)).unwrap().body.len(), 4096);
}

#[test]
fn answers_have_the_shape_that_providers_expect() {
    // A number where a text stands, or a header that is missing, is no answer to them.
    let route = Route::of(
        "
  - when: { json: type, equals: 1 }
    answer: { json: { type: 1, ok: true, echo: \"a{{{json:id}}}\" } }
  - when: { json: type, equals: 0 }
    answer: { status: 204 }
  - when: { header: kind, equals: verify }
    answer: { headers: { x-hook: \"{header:x-hook}\" }, empty: true }
  - when: { json: event, equals: endpoint.url_validation }
    compute: { algorithm: hmac-sha256, message: \"{json:payload.plainToken}\", encoding: hex }
    answer: { json: { plainToken: \"{json:payload.plainToken}\", encryptedToken: \"{computed}\" } }
",
    );
    let shape = |reply: HandshakeReply| (reply.status, String::from_utf8(reply.body.to_vec()).unwrap());
    let ping = route.signed(&[], r#"{"type":1,"id":"i\"1"}"#).unwrap();
    assert_eq!(ping.content_type, "application/json");
    assert_eq!(
        shape(ping),
        (200, r#"{"echo":"a{i\"1}","ok":true,"type":1}"#.to_owned())
    );
    let empty = route.signed(&[], r#"{"type":0}"#).unwrap();
    assert_eq!(shape(empty), (204, String::new()));
    let echo = route.signed(&[("kind", "verify"), ("x-hook", "s")], "{}").unwrap();
    assert_eq!(
        echo.headers,
        [(HeaderName::from_static("x-hook"), HeaderValue::from_static("s"))]
    );
    assert_eq!(route.signed(&[("kind", "verify")], "{}"), None);
    assert_eq!(
        route.signed(&[("kind", "verify"), ("x-hook", "a"), ("x-hook", "a")], "{}"),
        None
    );
    assert_eq!(route.signed(&[("kind", "verify"), ("x-hook", "caf\u{e9}")], "{}"), None);
    let zoom = route
        .signed(
            &[],
            r#"{"event":"endpoint.url_validation","payload":{"plainToken":"foo"}}"#,
        )
        .unwrap();
    let expected =
        r#"{"encryptedToken":"3bf5c380efe33597bbeb1c638b49f66d4f6fb1bef407d3e29841105ed5afac27","plainToken":"foo"}"#;
    assert_eq!(shape(zoom).1, expected);
}

#[test]
fn a_secret_is_brought_where_it_is_said_to_stand() {
    // The wrong value would be kept as the key of the route.
    let route = Route::of(
        "
  - when: { header: X-Hook-Secret, present: true }
    register: { header: X-Hook-Secret }
    answer: { headers: { X-Hook-Secret: \"{header:X-Hook-Secret}\" } }
  - when: { json: verification_token, present: true }
    register: { json: verification_token }
    answer: { status: 200 }
",
    );
    let brought = |headers: &[(&str, &str)], body: &str| match route.unsigned(Method::POST, "/", headers, body) {
        Met::Brings(secret, reply) => Some((
            String::from_utf8(secret.expose().to_vec()).unwrap(),
            reply.headers.len(),
        )),
        Met::Nothing => None,
        Met::Refused | Met::Reply(_) => panic!("answered without a secret"),
    };
    assert_eq!(brought(&[("x-hook-secret", "b537")], ""), Some(("b537".to_owned(), 1)));
    assert_eq!(
        brought(&[], r#"{"verification_token":"secret_x"}"#),
        Some(("secret_x".to_owned(), 0))
    );
    assert_eq!(brought(&[("x-hook-secret", "a"), ("x-hook-secret", "b")], ""), None);
    assert_eq!(brought(&[("x-hook-secret", "")], ""), None);
    assert_eq!(brought(&[], r#"{"verification_token":""}"#), None);
    assert!(route.provider.handshakes.bring_secrets());
    // Signed or not, by a method that the route does not take there is nothing to register.
    let got = route.unsigned(Method::GET, "/", &[("x-hook-secret", "b537")], "");
    assert!(matches!(got, Met::Nothing));
}

#[test]
fn the_head_alone_tells_which_methods_are_worth_a_body() {
    // A route would read the bodies of requests that it can only refuse.
    let route = Route::of(&format!("{META}{GET_CHALLENGE}{SLACK}"));
    let begins = |method: Method, target: &str| {
        let headers = HeaderMap::new();
        let head = Asked {
            method: &method,
            target,
            headers: &headers,
            body: b"",
        };
        route.provider.handshakes.may_begin(&head)
    };
    assert!(begins(Method::GET, "/?hub.mode=subscribe") && begins(Method::GET, "/?challenge=a"));
    assert!(!begins(Method::GET, "/") && !begins(Method::HEAD, "/?challenge=a") && !begins(Method::PUT, "/"));
}

/// Handshakes that cannot be meant, and the key they are refused for.
#[test]
fn handshakes_that_open_a_hole_are_refused() {
    // The hole would be found by somebody else.
    let get = "when: { query: a, present: true }, verify: none";
    let rows = [
        ("when: [], answer: { empty: true }".to_owned(), "when"),
        ("when: {}, answer: { empty: true }".to_owned(), "when"),
        ("when: { json: a }, answer: { empty: true }".to_owned(), "when"),
        (
            "when: { json: a, equals: b, present: true }, answer: { empty: true }".to_owned(),
            "when",
        ),
        (
            "when: { json: a, query: b, present: true }, answer: { empty: true }".to_owned(),
            "when",
        ),
        (
            "when: { method: GET, query: b, present: true }, answer: { empty: true }".to_owned(),
            "when",
        ),
        (
            "when: { method: GET, present: true }, answer: { empty: true }".to_owned(),
            "when",
        ),
        (
            "when: { method: PUT }, answer: { empty: true }".to_owned(),
            "when.method",
        ),
        (
            "when: { json: a..b, equals: c }, answer: { empty: true }".to_owned(),
            "when.json",
        ),
        (
            "when: { query: \"\", equals: c }, answer: { empty: true }".to_owned(),
            "when.query",
        ),
        (
            "when: { header: \"a b\", equals: c }, answer: { empty: true }".to_owned(),
            "when.header",
        ),
        (format!("{get}, answer: {{}}"), "answer"),
        (format!("{get}, answer: {{ text: a, empty: true }}"), "answer"),
        (format!("{get}, answer: {{ text: \"{{setting:token}}\" }}"), "answer"),
        (format!("{get}, answer: {{ text: \"{{url}}\" }}"), "answer"),
        (format!("{get}, answer: {{ text: \"{{computed}}\" }}"), "answer"),
        (format!("{get}, answer: {{ text: \"{{body}}\" }}"), "answer.text"),
        (format!("{get}, answer: {{ text: \"{{cookie:a}}\" }}"), "answer.text"),
        (format!("{get}, answer: {{ text: \"a{{\" }}"), "answer.text"),
        (format!("{get}, answer: {{ json: {{ a: {{ b: c }} }} }}"), "answer.json"),
        (format!("{get}, answer: {{ status: 302 }}"), "answer.status"),
        (format!("{get}, answer: {{ status: 204, text: a }}"), "answer.status"),
        (
            format!("{get}, answer: {{ headers: {{ Location: a }} }}"),
            "answer.headers",
        ),
        (
            format!("{get}, answer: {{ headers: {{ set-cookie: a }} }}"),
            "answer.headers",
        ),
        (
            format!("{get}, answer: {{ headers: {{ content-type: text/html }} }}"),
            "answer.headers",
        ),
        (
            "when: { query: a, present: true }, verify: { query: b, setting: \"\" }, answer: { empty: true }"
                .to_owned(),
            "verify.setting",
        ),
        (
            "when: { query: a, present: true }, verify: { setting: token }, answer: { empty: true }".to_owned(),
            "verify",
        ),
        (
            format!("{get}, register: {{ header: a }}, answer: {{ empty: true }}"),
            "verify",
        ),
        (
            "when: { header: a, present: true }, register: {}, answer: { empty: true }".to_owned(),
            "register",
        ),
        (
            format!(
                "{get}, compute: {{ algorithm: sha256, message: \"{{query:a}}\", encoding: hex }}, answer: {{ empty: true }}"
            ),
            "compute",
        ),
        (
            format!(
                "{get}, compute: {{ algorithm: sha256, message: a, encoding: hex }}, answer: {{ text: \"{{computed}}\" }}"
            ),
            "compute.message",
        ),
        (
            format!(
                "{get}, compute: {{ algorithm: hmac-sha1, message: \"{{query:a}}\", encoding: hex }}, answer: {{ text: \"{{computed}}\" }}"
            ),
            "compute.algorithm",
        ),
    ];
    for (row, key) in rows {
        let refused = built(&format!("  - {{ {row} }}\n")).err().map(|error| error.key);
        assert_eq!(refused, Some(format!("handshake.0.{key}")), "{row}");
    }
    let unexplained = built(&META.replace("setting: token", "setting: other")).err();
    assert_eq!(unexplained.map(|error| error.key).as_deref(), Some("settings"));
}

#[test]
fn a_scheme_that_leaves_the_body_out_lends_nothing() {
    // Its signatures are over a time and an id, which a challenge can spell.
    let with = |handshake: &str| {
        let stamp = "  timestamp: { header: ts, unit: s, tolerance: 5m }\n  signature";
        let scheme = SCHEME.replace("{body}", "{timestamp}").replace("  signature", stamp);
        let yaml = format!("{scheme}handshake:\n  - {{ {handshake} }}\n");
        let file: ProviderFile = serde_yaml::from_str(&yaml).unwrap();
        Provider::own("mine", &file).err().map(|error| error.key)
    };
    let compute = "compute: { algorithm: hmac-sha256, message: \"{query:a}\", encoding: hex }";
    let lent =
        format!("when: {{ query: a, present: true }}, verify: none, {compute}, answer: {{ text: \"{{computed}}\" }}");
    let rows = [
        (lent.as_str(), Some("handshake.0.compute")),
        (
            "when: { json: a, equals: b }, answer: { empty: true }",
            Some("handshake.0.when"),
        ),
        (
            "when: { header: a, equals: b }, answer: { text: \"{json:c}\" }",
            Some("handshake.0.when"),
        ),
        ("when: { header: a, equals: b }, answer: { text: \"{header:c}\" }", None),
        (
            "when: { json: a, equals: b }, verify: none, answer: { text: \"{json:c}\" }",
            None,
        ),
    ];
    for (handshake, key) in rows {
        assert_eq!(with(handshake).as_deref(), key, "{handshake}");
    }
}
