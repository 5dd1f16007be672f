//! Every kind of scheme that the language can say: requests signed by an independent computation (Python's hmac and
//! hashlib over the text that each row describes), and requests signed here, each with what must be refused.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::testing::{headers_of, scheme};
use super::{
    Draft, Failure, Head, KeyedSecret, Proof, PublicUrl, Scheme, Settings, Signed, Strength, Verifier, VerifierOptions,
    sign_request,
};
use crate::clock::UnixMillis;
use crate::secret::Secret;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const SECRET: &str = "a secret of sufficient length";
const URL: &str = "https://hooks.example.com/hooks?x=1";
const TARGET: &str = "/hooks?x=1";
const BODY: &str = r#"{"id":"e1","amount":12.50,"ok":true,"none":null,"mail":{"time":"1700000000","token":"tok"}}"#;

/// Keys of no use outside of these tests.
const ED25519: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIBj15pI8jh3LVUrMw7ftT+PS8O+BLGvH/mdPyRNlBPQ5\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAx4ShfyPV2jhQ/5S2anx1MUiJQIhp7L2lv3rnbY6e0zE=\n-----END PUBLIC KEY-----\n",
];
const P256: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqNBqjkYx/Jr96IoZ\nUAuJ88t+yucHYtDScso9i3iDtDShRANCAARtp+9x2XpQPGfum5UwRS3MVLhyLFEk\nd0DdcIOMjzMmpuhTxINBo3c9+V7IswOYNEtPMNhLxkQrKsaXbc5nArDw\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbafvcdl6UDxn7puVMEUtzFS4cixR\nJHdA3XCDjI8zJqboU8SDQaN3PfleyLMDmDRLTzDYS8ZEKyrGl23OZwKw8A==\n-----END PUBLIC KEY-----\n",
];

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.insert("app", Secret::new("pub").unwrap()).unwrap();
    settings
}

fn verifier(scheme: Scheme, key: &str) -> Verifier {
    let keyed = KeyedSecret {
        id: "key".into(),
        secret: Secret::new(key).unwrap(),
        until: None,
    };
    let options = VerifierOptions {
        public_url: Some(PublicUrl::parse(URL).unwrap()),
        settings: settings(),
        ..VerifierOptions::default()
    };
    Verifier::new(Arc::new(scheme), vec![keyed], options).unwrap()
}

fn judge(verifier: &Verifier, target: &str, headers: &HeaderMap, body: &[u8]) -> Result<Proof, Failure> {
    let head = Head {
        method: &Method::POST,
        target,
        headers,
    };
    let mut check = verifier.begin(head, NOW);
    body.chunks(7).for_each(|piece| check.update(piece));
    check.finish(body)?.without_fetching()
}

/// Judges the request that `yaml` signs.
fn verdict(yaml: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<Strength, Failure> {
    let verifier = verifier(scheme(yaml), SECRET);
    judge(&verifier, target, &headers_of(headers), body.as_bytes()).map(|proof| proof.strength())
}

#[test]
fn signatures_computed_elsewhere_are_accepted() {
    // A signer and a verifier that are wrong in the same way would pass every other test.
    use Strength::{Authenticated, Verified};
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, Strength);
    let hubspot = "7ff9c3f12eb6c864a3f63b1b6992433bdd3016bd8bae8c0a7932b69d3e763945";
    let hex_in_base64 = "Y2JhOTFiOTJhYzM4NjYzYzFkNThiYWMyMmM4NDE2ZDk2YTliODU4YWU0NTUyNWY4NjE1MTRjYTZiZmYwMmMzNzk4MTBjYjY5OTM4NWE5ZGUyMWZlNWYxNDM2NDkwMDM4ZmVjNjBiMmU2MDQ5NDM4MTljNDM0ODQwZjRhOTk3ZmY=";
    let sha512 = "633cfe2d4b61340518ba9198c0c4252d8dda1af0510a81c266122ba2c65ee706615443a00dafe1fe0fa8ac21f823b55d837fcadb0c6f03e6e9e4770225db3bd3";
    let sha384 = "2f7dde323e975575c318266adedd32979f2b72e437897072c0d0bbd5bde8630bf6e280e419b6f0a290f0d78c160ef14a";
    let with_hmac = format!("/hooks?hmac={sha512}");
    let optional = "algorithm: hmac-sha256\nkey: utf8\nmessage: \"[id:{query:data.id};][request-id:{header:x-request-id};]ts:{timestamp};\"\n\
                    signature: { header: s, format: kv, separator: \",\", fields: [v1], encoding: hex }\n\
                    timestamp: { field: ts, unit: s, tolerance: 5m }";
    let rows: &[Row<'_>] = &[
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{method}\\n{path}\\n{timestamp}\\n{body_sha256}\"\n\
             signature: { header: s, encoding: base64 }\ntimestamp: { header: t, unit: s, tolerance: 5m }",
            TARGET,
            &[
                ("s", "ssI2GcXI6hOaRnDwgDoVdBCEaTqzlAUUFpaAPcXkCjI="),
                ("t", "1700000000"),
            ],
            BODY,
            Verified,
        ),
        (
            optional,
            "/?data.id=42&type=x",
            &[
                (
                    "s",
                    "ts=1700000000,v1=7998565dcea136ef2c088c1bf66c410d439d4fd263573c3082febf473438880a",
                ),
                ("x-request-id", "req-1"),
            ],
            "{}",
            Authenticated,
        ),
        (
            optional,
            "/",
            &[
                (
                    "s",
                    "ts=1700000000,v1=5a2ad9324f892c7b727bd3b002ac6345ebb1ee035ac11deffd5a90e37110b6bd",
                ),
                ("x-request-id", "req-1"),
            ],
            "{}",
            Authenticated,
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{timestamp}{json:mail.token}\"\n\
             signature: { query: sig, encoding: hex }\ntimestamp: { json: mail.time, unit: s, tolerance: 5m }",
            "/?sig=c6a72d0f63f435efaed81f060701c4910dfca57318aaa4f057ba763e0d1e7ad1",
            &[],
            BODY,
            Authenticated,
        ),
        (
            "algorithm: hmac-sha512\nkey: utf8\nmessage: \"{json:amount}{json:ok}{json:none}--{json:id}\"\n\
             signature: { query: hmac, encoding: hex }",
            &with_hmac,
            &[],
            BODY,
            Authenticated,
        ),
        (
            "algorithm: sha256\nkey: utf8\nmessage: \"{secret}{method}{url}{body}\"\n\
             signature: { header: s, encoding: hex }\nrequire: { v: v2 }",
            TARGET,
            &[("s", hubspot), ("v", "v2")],
            BODY,
            // Whoever has seen the hash of a beginning can hash what is added to it.
            Authenticated,
        ),
        (
            "algorithm: sha1\nkey: utf8\nmessage: \"{body}{timestamp}{secret}\"\nsignature: { header: s, encoding: hex }\n\
             timestamp: { header: t, unit: s, tolerance: off }",
            "/",
            &[("s", "686f43ce23ed2a44303ec76b91a77e9bb11d2f9a"), ("t", "1700000000")],
            BODY,
            Verified,
        ),
        (
            "algorithm: hmac-sha1\nkey: utf8\nmessage: \"{url}{sorted_form}\"\nsignature: { header: s, encoding: base64 }",
            TARGET,
            &[
                ("s", "ayU0G8h3egyh+Tx0aQpipuKgGA0="),
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ],
            "b+c=d&a=2&a=1&a=2",
            Authenticated,
        ),
        (
            "algorithm: hmac-sha512\nkey: utf8\nmessage: \"{setting:app}{body}{setting:app}\"\n\
             signature: { header: s, encoding: hex-in-base64 }",
            "/",
            &[("s", hex_in_base64)],
            BODY,
            Verified,
        ),
        (
            "algorithm: hmac-sha384\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: \"s-{n}\", encoding: hex }",
            "/",
            &[("s-2", "00"), ("s-16", sha384)],
            BODY,
            Verified,
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}{timestamp}\"\n\
             signature: { headers: [one, two], encoding: base64 }\ntimestamp: { header: t, unit: rfc3339, tolerance: 5m }",
            "/",
            &[
                ("two", "UtPeERqO4bxU/OaLWSG/nESeHQXGhwm7kp9xiyBhzp8="),
                ("t", "2023-11-14T22:13:20Z"),
            ],
            BODY,
            Verified,
        ),
    ];
    for (yaml, target, headers, body, strength) in rows {
        assert_eq!(verdict(yaml, target, headers, body), Ok(*strength), "{yaml}");
        let other = body
            .replacen("e1", "e2", 1)
            .replacen("tok", "tik", 1)
            .replacen("a=2", "a=3", 2);
        if *strength == Strength::Verified || other != *body && !yaml.contains("[id:") {
            assert_eq!(verdict(yaml, target, headers, &other), Err(Failure::Mismatch), "{yaml}");
        }
    }
}

#[test]
fn what_belongs_to_a_signature_is_demanded() {
    // A required version, a query that is not the signed one, a value in the signed place of another one.
    let hubspot = "algorithm: sha256\nkey: utf8\nmessage: \"{secret}{method}{url}{body}\"\n\
                   signature: { header: s, encoding: hex }\nrequire: { v: v2 }";
    let s = ("s", "7ff9c3f12eb6c864a3f63b1b6992433bdd3016bd8bae8c0a7932b69d3e763945");
    assert_eq!(verdict(hubspot, TARGET, &[s], BODY), Err(Failure::Malformed));
    assert_eq!(
        verdict(hubspot, TARGET, &[s, ("v", "v1")], BODY),
        Err(Failure::Malformed)
    );
    assert_eq!(
        verdict(hubspot, TARGET, &[s, ("v", "v2"), ("v", "v1")], BODY),
        Err(Failure::Malformed)
    );
    for target in ["/hooks", "/hooks?x=2", "/hooks?x=1&y=2", "/hooks?"] {
        assert_eq!(
            verdict(hubspot, target, &[s, ("v", "v2")], BODY),
            Err(Failure::Mismatch),
            "{target}"
        );
    }
    let plain = "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex }\n\
                 require: { v: v2 }";
    let draft = |yaml: &str| signed(&scheme(yaml), SECRET, BODY.as_bytes());
    let good = draft(plain).headers;
    let pairs: Vec<_> = good
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(verdict(plain, "/", &pairs, BODY), Ok(Strength::Verified));
    assert_eq!(
        verdict(plain, "/", &pairs[..1], BODY),
        Err(Failure::Malformed),
        "streamed schemes demand it, too"
    );
    let fenced =
        "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{header:n}.{body}\"\nsignature: { header: s, encoding: hex }";
    let wrong = "00".repeat(32);
    let headers = [("n", "a.b"), ("s", wrong.as_str())];
    assert_eq!(verdict(fenced, "/", &headers, BODY), Err(Failure::Malformed));
    assert_eq!(verdict(fenced, "/", &headers[1..], BODY), Err(Failure::Missing));
}

#[test]
fn groups_have_times_of_their_own() {
    // During a rotation the signature of one secret would be judged by the time of the other.
    let yaml = "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{timestamp}.{body}\"\n\
                signature: { header: s, format: kv, separator: \",\", fields: [v1], group: \" \", encoding: hex }\n\
                timestamp: { field: t, unit: s, tolerance: 5m }";
    let good = "t=1700000000,v1=0997e6603a8d96f1920d0d12cfc59dfd2bd52937cf87eaddbca0205757e8653f";
    let other = format!("t=1600000000,v1={}", "00".repeat(32));
    let of = |text: &str| verdict(yaml, "/", &[("s", text)], BODY);
    assert_eq!(of(good), Ok(Strength::Verified));
    assert_eq!(of(&format!("{other} {good}")), Ok(Strength::Verified));
    assert_eq!(of(&format!("{good} {other}")), Ok(Strength::Verified));
    assert_eq!(
        of(&good.replace("t=1700000000", "t=1700000001")),
        Err(Failure::Mismatch)
    );
    assert_eq!(of(&good.replace("t=1700000000,", "")), Err(Failure::Malformed));
    assert_eq!(
        of(&format!("{good} {}", [other.as_str(); 4].join(" "))),
        Err(Failure::Malformed)
    );
}

#[test]
fn tokens_are_compared_as_a_whole() {
    // A token that is compared by its beginning can be guessed letter by letter.
    let token = |place: &str| format!("algorithm: token\nsignature: {{ {place} }}");
    let header = token("header: authorization, prefix: \"Bearer \"");
    let of = |value: &str| verdict(&header, "/", &[("authorization", value)], "{}");
    assert_eq!(of(&format!("Bearer {SECRET}")), Ok(Strength::Authenticated));
    for wrong in [
        "Bearer a secret",
        "Bearer A secret of sufficient length",
        "Bearer a secret of sufficient lengths",
    ] {
        assert_eq!(of(wrong), Err(Failure::Mismatch), "{wrong}");
    }
    assert_eq!(of(SECRET), Err(Failure::Malformed));
    assert_eq!(of("Bearer"), Err(Failure::Malformed));
    assert_eq!(verdict(&header, "/", &[], "{}"), Err(Failure::Missing));

    let items = token("json: \"value[].state\"");
    let body = |states: &[&str]| {
        let items: Vec<_> = states
            .iter()
            .map(|state| serde_json::json!({ "state": state }))
            .collect();
        serde_json::json!({ "value": items }).to_string()
    };
    assert_eq!(
        verdict(&items, "/", &[], &body(&[SECRET, SECRET])),
        Ok(Strength::Authenticated)
    );
    assert_eq!(verdict(&items, "/", &[], &body(&[SECRET, "x"])), Err(Failure::Mismatch));
    assert_eq!(verdict(&items, "/", &[], &body(&[])), Err(Failure::Missing));
    for wrong in [
        "{}",
        "[]",
        "",
        "{\"value\":[{}]}",
        "{\"value\":{\"state\":\"x\"}}",
        "{\"value\":[1]}",
    ] {
        assert_eq!(verdict(&items, "/", &[], wrong), Err(Failure::Malformed), "{wrong}");
    }
    assert_eq!(
        verdict(&items, "/", &[], &body(&vec![SECRET; 1001])),
        Err(Failure::Malformed)
    );

    let query = token("query: token");
    assert_eq!(
        verdict(&query, "/?token=a+secret%20of+sufficient+length", &[], ""),
        Ok(Strength::Authenticated)
    );
    assert_eq!(
        verdict(&query, "/?token=a&token=a+secret+of+sufficient+length", &[], ""),
        Err(Failure::Malformed)
    );
    assert_eq!(
        verdict(&token("json: mail.token"), "/", &[], BODY),
        Err(Failure::Mismatch)
    );
}

#[test]
fn basic_is_a_token_with_a_user() {
    // A password that is read at another colon, or in another spelling, opens the route to somebody else.
    let verifier = verifier(scheme("algorithm: basic"), "user:pass:word of some length");
    let of = |value: &str| judge(&verifier, "/", &headers_of(&[("authorization", value)]), b"").map(|_| ());
    assert_eq!(of("Basic dXNlcjpwYXNzOndvcmQgb2Ygc29tZSBsZW5ndGg="), Ok(()));
    assert_eq!(of("bASIC dXNlcjpwYXNzOndvcmQgb2Ygc29tZSBsZW5ndGg="), Ok(()));
    assert_eq!(
        of("Basic dXNlcjpwYXNzOndvcmQgb2Ygc29tZSBsZW5ndGg"),
        Err(Failure::Malformed)
    );
    assert_eq!(
        of("Basic  dXNlcjpwYXNzOndvcmQgb2Ygc29tZSBsZW5ndGg="),
        Err(Failure::Malformed)
    );
    assert_eq!(of("Bearer dXNlcjpwYXNz"), Err(Failure::Malformed));
    assert_eq!(of("Basic dXNlcjpwYXNz"), Err(Failure::Mismatch));
    assert_eq!(of("Basic"), Err(Failure::Malformed));
    let no_colon = KeyedSecret {
        id: "key".into(),
        secret: Secret::new(SECRET).unwrap(),
        until: None,
    };
    let options = VerifierOptions::default();
    assert!(Verifier::new(Arc::new(scheme("algorithm: basic")), vec![no_colon], options).is_err());
}

fn signed(scheme: &Scheme, secret: &str, body: &[u8]) -> Signed {
    let draft = Draft {
        method: "POST",
        target: TARGET,
        headers: &HeaderMap::new(),
        body,
        public_url: Some(&PublicUrl::parse(URL).unwrap()),
        settings: &settings(),
        id: "0f8fad5b-d9cb-469f-a165-70867728950e",
        now: NOW,
    };
    sign_request(scheme, &Secret::new(secret).unwrap(), &draft).unwrap()
}

/// Schemes, the key that signs and the one that verifies.
fn signable() -> Vec<(String, [&'static str; 2])> {
    let shared = [SECRET; 2];
    let mut all = Vec::new();
    for (message, more) in [
        ("{method} {url} {id}.{body}", "id: { header: i }"),
        (
            "{id}{timestamp}{body}",
            "id: { header: i, length: 36 }\ntimestamp: { header: t, unit: rfc3339, tolerance: 1s }",
        ),
        ("{body}{timestamp}", "timestamp: { query: t, unit: us, tolerance: 1m }"),
        (
            "{body}{timestamp}",
            "timestamp: { header: t, unit: http-date, tolerance: 1m }",
        ),
        (
            "{body}:{timestamp}",
            "timestamp: { json: at.sent, unit: datetime, tolerance: 1m }",
        ),
        ("{header:n}\\n{query:q}\\n{path}\\n{body_sha256}", ""),
        ("[a:{header:n};]x:{setting:app}:{body}", ""),
        ("[a:{query_lower:q};]x:{body}", ""),
    ] {
        for algorithm in ["hmac-sha1", "hmac-sha384", "hmac-sha512"] {
            let yaml = format!(
                "algorithm: {algorithm}\nkey: utf8\nmessage: \"{message}\"\nsignature: {{ header: s, encoding: base64url }}\n{more}"
            );
            all.push((yaml, shared));
        }
    }
    for (algorithm, keys, ecdsa) in [
        ("ed25519", ED25519, ""),
        ("ecdsa-p256-sha256", P256, ""),
        ("ecdsa-p256-sha256", P256, ", ecdsa: raw"),
    ] {
        let yaml = format!(
            "algorithm: {algorithm}\nkey: pem\nmessage: \"{{field:n}}|{{timestamp}}.{{body}}\"\n\
             signature: {{ header: s, format: kv, separator: \";\", fields: [v1], encoding: hex{ecdsa} }}\n\
             timestamp: {{ field: t, unit: ms, tolerance: 5m }}"
        );
        all.push((yaml, keys));
    }
    let positional = "algorithm: md5\nkey: utf8\nmessage: \"{timestamp}.{body}{secret}\"\n\
                      signature: { header: s, format: positional, separator: \",\", encoding: hex }\n\
                      timestamp: { first: true, unit: ms, tolerance: 5m }";
    all.push((positional.to_owned(), shared));
    all
}

#[test]
fn what_is_signed_is_accepted_and_one_changed_byte_is_not() {
    // A provider's real events would be refused, or forged ones delivered.
    for (yaml, [private, public]) in signable() {
        let scheme = scheme(&yaml);
        assert_eq!(scheme.strength(), Strength::Verified, "{yaml}");
        let Signed { headers, query, body } = signed(&scheme, private, BODY.as_bytes());
        let body = body.unwrap_or_else(|| BODY.as_bytes().to_vec());
        let target = query.map_or(TARGET.to_owned(), |query| format!("/hooks?{query}"));
        let pairs: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let verifier = verifier(scheme, public);
        let head = headers_of(&pairs);
        // A URL that is signed is signed with its own query.
        let signs_query = yaml.contains("{url}") || yaml.contains("{path}");
        let target = if signs_query && !yaml.contains("{query:") {
            TARGET.to_owned()
        } else {
            target
        };
        let proof = judge(&verifier, &target, &head, &body);
        if signs_query && yaml.contains("{query:") {
            assert_eq!(
                proof.err(),
                Some(Failure::Mismatch),
                "the signed query is not the one sent: {yaml}"
            );
            continue;
        }
        assert_eq!(proof.map(|proof| proof.strength()), Ok(Strength::Verified), "{yaml}");
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert!(judge(&verifier, &target, &head, &changed).is_err(), "{yaml}: byte {at}");
        }
        for (name, value) in &pairs {
            for at in 0..value.len() {
                let mut changed = value.as_bytes().to_vec();
                changed[at] ^= 1;
                let Ok(changed) = http::HeaderValue::from_bytes(&changed) else {
                    continue;
                };
                let mut head = head.clone();
                head.insert(http::HeaderName::try_from(*name).unwrap(), changed);
                assert!(judge(&verifier, &target, &head, &body).is_err(), "{yaml}: {name} {at}");
            }
        }
    }
}

#[test]
fn files_that_promise_too_much_are_refused() {
    // A scheme that checks less than its file says is worse than none.
    let key = |yaml: &str| {
        let file = serde_yaml::from_str(yaml).unwrap();
        Scheme::build("test", &file).err().map(|e| e.key)
    };
    let rows = [
        ("key: utf8", "algorithm"),
        (
            "algorithm: sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex }",
            "message",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}{secret}\"\nsignature: { header: s, encoding: hex }",
            "message",
        ),
        (
            "algorithm: hmac-sha256\nkey: pem\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex }",
            "key",
        ),
        (
            "algorithm: ed25519\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex }",
            "key",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { json: s, encoding: hex }",
            "message",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, json: s, encoding: hex }",
            "signature",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { encoding: hex }",
            "signature",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s }",
            "signature.encoding",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex, ecdsa: raw }",
            "signature.ecdsa",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{header:s}.{body}\"\nsignature: { header: s, encoding: hex }",
            "message",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{field:n}.{body}\"\nsignature: { header: s, encoding: hex }",
            "message",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex }\nrequire: { s: x }",
            "require",
        ),
        (
            "algorithm: hmac-sha256\nkey: utf8\nmessage: \"{body}\"\nsignature: { header: s, encoding: hex }\nrequire: { v: \" x\" }",
            "require",
        ),
        ("algorithm: token", "signature"),
        (
            "algorithm: token\nsignature: { header: s, encoding: hex }",
            "signature.encoding",
        ),
        (
            "algorithm: token\nmessage: \"{body}\"\nsignature: { header: s }",
            "message",
        ),
        (
            "algorithm: token\nsignature: { json: \"a[].b[].c[].d\" }",
            "signature.json",
        ),
        ("algorithm: basic\nsignature: { header: s }", "signature"),
        ("native: twilio\nkey: utf8", "key"),
    ];
    for (yaml, expected) in rows {
        assert_eq!(key(yaml).as_deref(), Some(expected), "{yaml}");
    }
}
