//! Genuine requests, signed as their providers sign, for tests to spoil before they send them.

use hookward::clock::UnixMillis;
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature;

use super::{NOW, SECRET};

/// The secret of test routes whose provider wants it in base64.
pub const WHSEC: &str = "whsec_YS1zZWNyZXQtZm9yLXRlc3RzLW9ubHk=";

/// Providers that sign in five ways: hexadecimal, base64, with a time in a header, with an id, and as a list.
pub const PROVIDERS: [&str; 5] = ["github", "shopify", "slack", "standard-webhooks", "stripe"];

/// A request of a provider.
#[derive(Clone, Debug)]
pub struct Event {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Event {
    /// The event `id` of a provider, signed at [`NOW`] with the secret that test routes have.
    pub fn of(provider: &str, id: &str) -> Event {
        Event::signed_at(provider, id, NOW)
    }

    /// The same event, signed at another time. Only what the signature needs differs.
    pub fn signed_at(provider: &str, id: &str, at: UnixMillis) -> Event {
        Event::signed_with(provider, id, at, secret_of(provider))
    }

    /// The same event under another secret.
    pub fn signed_with(provider: &str, id: &str, at: UnixMillis, secret: &str) -> Event {
        let sample = builtin().find(provider).unwrap().sample(id, NOW);
        let headers = sample.headers.iter();
        let unsigned = Event {
            path: format!("/webhooks/{provider}"),
            headers: headers.map(|(name, value)| (name.to_string(), value.clone())).collect(),
            body: sample.body.to_vec(),
        };
        unsigned.sign(provider, id, at, secret)
    }

    /// Signs whatever the body is.
    pub fn sign(mut self, provider: &str, id: &str, at: UnixMillis, secret: &str) -> Event {
        let scheme = &builtin().find(provider).unwrap().scheme;
        let secret = Secret::new(secret).unwrap();
        for (name, value) in signature::sign(scheme, &secret, id, at, &self.body).unwrap() {
            self.set(name.as_str(), &value);
        }
        self
    }

    /// To another path.
    pub fn to(mut self, path: &str) -> Event {
        self.path = path.to_owned();
        self
    }

    /// With one more header, at the end.
    pub fn with(mut self, name: &str, value: &str) -> Event {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Event {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// The value of a header.
    pub fn value(&self, name: &str) -> &str {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        &values.next().unwrap().1
    }

    /// Gives a header this one value.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.headers.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(header) => header.1 = value.to_owned(),
            None => self.headers.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The request's head as bytes on the wire.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\nHost: gateway.test\r\n", self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        head.into_bytes()
    }

    /// The whole request as bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

/// The secret that test routes of this provider have.
pub fn secret_of(provider: &str) -> &'static str {
    match provider {
        "standard-webhooks" => WHSEC,
        _ => SECRET,
    }
}
