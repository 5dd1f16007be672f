//! Questions of providers that the gateway answers by itself: every kind there is, who may ask, what strangers get out
//! of it, and routes that wait for their secret.

mod abuse;
mod kinds;
mod register;

use std::net::SocketAddr;

use hookward::providers::{Provider, ProviderFile};
use hookward::secret::Secret;
use hookward::signature;

use crate::harness::{Answer, Client, Conf, NOW, SECRET};

/// What signs in these tests; the handshakes of a scheme do not depend on how it signs.
const SIGNED: &str =
    "scheme: { algorithm: hmac-sha256, key: utf8, message: \"{body}\", signature: { header: x-sig, encoding: hex } }";

/// A provider in the making: its name, its settings and its handshakes.
#[derive(Clone, Copy)]
struct Asking {
    name: &'static str,
    /// The keys of the scheme besides `scheme`, in flow style.
    keys: &'static str,
    /// More keys of its route.
    route: &'static str,
}

impl Asking {
    /// A gateway's configuration with one route for each of them; nobody may reach the application.
    fn conf(all: &[Asking], upstream: SocketAddr) -> Conf {
        let mut conf = Conf::to(upstream).top("schemes:");
        for asking in all {
            conf = conf.top(&format!("  {}: {{ {SIGNED}, {} }}", asking.name, asking.keys));
        }
        for asking in all {
            let verified = format!("scheme: {}, secrets: [{{ value: {SECRET} }}]", asking.name);
            conf = conf.route_called(asking.name, &verified, asking.route);
        }
        conf
    }
}

/// A request for a route, as text.
#[derive(Clone)]
struct Question {
    method: &'static str,
    /// What follows the route's path.
    query: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Question {
    fn new(method: &'static str, query: &str) -> Question {
        Question {
            method,
            query: query.to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    fn get(query: &str) -> Question {
        Question::new("GET", query)
    }

    fn post(body: &str) -> Question {
        Question {
            body: body.to_owned(),
            ..Question::new("POST", "")
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Question {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Signed with the secret of test routes.
    fn signed(self) -> Question {
        self.signed_with(SECRET)
    }

    fn signed_with(self, secret: &str) -> Question {
        let file: ProviderFile = serde_yaml::from_str(&format!("{{ {SIGNED} }}")).unwrap();
        let scheme = Provider::own("signer", &file).unwrap().scheme;
        let secret = Secret::new(secret).unwrap();
        let headers = signature::sign(&scheme, &secret, "", NOW, self.body.as_bytes()).unwrap();
        let signature = headers[0].1.clone();
        self.with("x-sig", &signature)
    }

    fn bytes(&self, route: &str) -> Vec<u8> {
        let mut head = format!(
            "{} /webhooks/{route}{} HTTP/1.1\r\nHost: gateway.test\r\n",
            self.method, self.query
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        format!("{head}\r\n{}", self.body).into_bytes()
    }

    /// Asks on a connection of its own.
    async fn ask(&self, gateway: SocketAddr, route: &str) -> Answer {
        let mut client = Client::connect(gateway).await;
        client.send(&self.bytes(route)).await;
        match self.method {
            "HEAD" => client.bodiless_answer().await,
            _ => client.answer().await,
        }
    }
}
