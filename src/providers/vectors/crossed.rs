//! The right key under the wrong scheme: what one provider's scheme makes of a secret opens no other provider's route.
//!
//! Every provider signs one event under the same secret, and every other one judges it: as it is, and with the values
//! moved to the headers in which the other looks. It may be accepted only where the other one would have written the very
//! same headers, since some providers sign alike.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::spoilt::SPARE_KEYS;
use super::{Provider, builtin};
use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::{
    Draft, Head, KeyedSecret, PublicUrl, Settings, Signed, Verifier, VerifierOptions, fitting_id, sign_request,
};

/// A secret that every form of shared keys can be read from: text, hexadecimal, base64, `user:password` but for the colon.
const SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const BODY: &[u8] = br#"{"id":"evt_1","type":"t","value":[{"clientState":"x"}],"notificationItems":[{"NotificationRequestItem":{"success":"true"}}]}"#;
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const URL: &str = "https://hooks.example.com/in/1";

/// NMI signs a number used once where TikTok signs the time, in the same words: a time is such a number.
const ALIKE: (&str, &str) = ("tiktok", "nmi");

struct World {
    url: PublicUrl,
    settings: Settings,
}

/// A provider with what it made of the secret, and what judges others by it.
struct Side {
    provider: &'static Provider,
    signed: Signed,
    verifier: Verifier,
}

impl World {
    fn new() -> World {
        let mut settings = Settings::default();
        for provider in builtin().iter() {
            for name in provider.settings.keys() {
                let value = if name == "base_url" { URL } else { "value" };
                // The same name may be another provider's, too.
                settings.insert(name, Secret::new(value).unwrap()).ok();
            }
        }
        World {
            url: PublicUrl::parse(URL).unwrap(),
            settings,
        }
    }

    fn sign(&self, provider: &Provider, secret: &str) -> Option<Signed> {
        let draft = Draft {
            method: "POST",
            target: "/in/1",
            headers: &HeaderMap::new(),
            body: BODY,
            public_url: Some(&self.url),
            settings: &self.settings,
            id: &fitting_id(&provider.scheme, "msga1b2c3d4"),
            now: NOW,
        };
        sign_request(&provider.scheme, &Secret::new(secret).unwrap(), &draft).ok()
    }

    fn verifier(&self, provider: &Provider, secret: &str) -> Option<Verifier> {
        let keyed = KeyedSecret {
            id: "key".into(),
            secret: Secret::new(secret).unwrap(),
            until: None,
        };
        let options = VerifierOptions {
            public_url: Some(self.url.clone()),
            settings: self.settings.clone(),
            ..VerifierOptions::default()
        };
        Verifier::new(provider.scheme.clone(), vec![keyed], options).ok()
    }
}

fn headers(pairs: &[(HeaderName, String)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::try_from(text).unwrap();
    pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

fn is_accepted(verifier: &Verifier, signed: &Signed, headers: &HeaderMap) -> bool {
    let target = signed.query.as_ref().map(|query| format!("/in/1?{query}"));
    let head = Head {
        method: &http::Method::POST,
        target: target.as_deref().unwrap_or("/in/1"),
        headers,
    };
    let body = signed.body.as_deref().unwrap_or(BODY);
    let mut check = verifier.begin(head, NOW);
    check.update(body);
    check.finish(body).is_ok()
}

/// The values of `from` under the names of `to`: the first of each is the signature's, the others follow.
fn moved(from: &Side, to: &Provider) -> Vec<(HeaderName, String)> {
    let order = |provider: &Provider| provider.scheme.security_headers().to_vec();
    let mut own: Vec<_> = from.signed.headers.clone();
    let names = order(from.provider);
    own.sort_by_key(|(name, _)| names.iter().position(|own| own == name));
    let values = own.into_iter().map(|(_, value)| value);
    order(to).into_iter().zip(values).collect()
}

#[test]
fn the_right_key_opens_its_own_scheme_alone() {
    // A secret that is used twice, or a header of an older scheme that comes besides, would open a route.
    let world = World::new();
    let side = |provider: &'static Provider| {
        Some(Side {
            provider,
            signed: world.sign(provider, SECRET)?,
            verifier: world.verifier(provider, SECRET)?,
        })
    };
    let providers = builtin().iter().map(|provider| &**provider);
    let sides: Vec<Side> = providers.filter_map(side).collect();
    assert!(sides.len() >= 210, "{} providers with this secret", sides.len());
    let (mut pairs, mut alike) = (0, 0);
    let mut wrong = Vec::new();
    for from in &sides {
        let own = headers(&from.signed.headers);
        for to in sides.iter().filter(|to| to.provider.id != from.provider.id) {
            pairs += 1;
            let theirs = headers(&to.signed.headers);
            let bodies_alike = from.signed.body == to.signed.body && from.signed.query == to.signed.query;
            for sent in [own.clone(), headers(&moved(from, to.provider))] {
                if !is_accepted(&to.verifier, &from.signed, &sent) {
                    continue;
                }
                let same = theirs.iter().all(|(name, value)| sent.get(name) == Some(value));
                let known = (from.provider.id.as_str(), to.provider.id.as_str()) == ALIKE;
                match known || (same && bodies_alike) {
                    true => alike += 1,
                    false => wrong.push(format!("{} as {}", from.provider.id, to.provider.id)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {pairs}: {wrong:#?}", wrong.len());
    assert!(pairs >= 44_000 && alike > 100, "{pairs} pairs, {alike} of them alike");
}

#[test]
fn a_public_key_is_nobodys_shared_secret() {
    // Public keys lie about openly: whoever signs with the text of one by HMAC would be let in (RS256 read as HS256).
    let world = World::new();
    let asymmetric = |provider: &&'static Provider| {
        let signs = SPARE_KEYS.iter().any(|key| world.sign(provider, key).is_some());
        provider.scheme.needs_secrets() && !signs
    };
    let providers: Vec<&Provider> = builtin().iter().map(|provider| &**provider).collect();
    let (mut keys, mut count) = (0, 0);
    for to in providers.iter().filter(|provider| asymmetric(provider)) {
        for key in SPARE_KEYS {
            let Some(verifier) = world.verifier(to, key) else {
                continue;
            };
            keys += 1;
            for from in &providers {
                let (Some(signed), Some(own)) = (world.sign(from, key), world.verifier(from, key)) else {
                    continue;
                };
                let side = Side {
                    provider: from,
                    signed,
                    verifier: own,
                };
                for sent in [headers(&side.signed.headers), headers(&moved(&side, to))] {
                    count += 1;
                    let accepted = is_accepted(&verifier, &side.signed, &sent);
                    assert!(!accepted, "{} under the public key of {}", from.id, to.id);
                }
            }
        }
    }
    assert!(keys >= 15 && count >= 4_000, "{count} forgeries for {keys} keys");
}
