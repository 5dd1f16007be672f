//! A configuration in the making. Everything has a default, so a test writes down what it is about.

use std::fmt::Write;
use std::net::SocketAddr;

use super::secret_of;

/// An upstream that nobody answers for: ports this low are for root, and this one for a service long gone.
pub const NOBODY: &str = "servers: [127.0.0.1:1]";

/// A configuration whose routes all lead to one upstream, `app`. Pieces are YAML in flow style.
#[derive(Clone)]
pub struct Conf {
    upstream: String,
    limits: String,
    top: String,
    routes: String,
}

impl Conf {
    /// Everything to `upstream`, nobody limited, no routes yet.
    pub fn to(upstream: SocketAddr) -> Conf {
        Conf::to_app(&format!("servers: [\"{upstream}\"]"))
    }

    /// Everything to an upstream of these keys.
    pub fn to_app(keys: &str) -> Conf {
        Conf {
            upstream: keys.to_owned(),
            limits: "client_rate: 100000/s, client_burst: 100000".to_owned(),
            top: String::new(),
            routes: String::new(),
        }
    }

    /// A further key of the upstream.
    pub fn app(mut self, key: &str) -> Conf {
        write!(self.upstream, ", {key}").unwrap();
        self
    }

    /// The limits of the process, instead of none.
    pub fn limits(mut self, limits: &str) -> Conf {
        self.limits = limits.to_owned();
        self
    }

    /// A further line of the file.
    pub fn top(mut self, line: &str) -> Conf {
        writeln!(self.top, "{line}").unwrap();
        self
    }

    /// A route of a built-in provider with the secret that test events are signed with, called like the provider,
    /// at `/webhooks/<provider>`. `keys` is more of the route.
    pub fn route(self, provider: &str, keys: &str) -> Conf {
        let secret = format!("secrets: [{{ value: \"{}\" }}]", secret_of(provider));
        let verified = format!("provider: {provider}, {secret}");
        self.route_called(provider, &verified, keys)
    }

    /// A route called `name`, at `/webhooks/<name>`; `verified` is its provider or scheme, and its secrets.
    pub fn route_called(mut self, name: &str, verified: &str, keys: &str) -> Conf {
        let route = format!("name: {name}, path: /webhooks/{name}, upstream: app, {verified}, {keys}");
        writeln!(self.routes, "  - {{ {route} }}").unwrap();
        self
    }

    /// The file.
    pub fn yaml(&self) -> String {
        let Conf {
            upstream,
            limits,
            top,
            routes,
        } = self;
        format!("limits: {{ {limits} }}\n{top}upstreams: {{ app: {{ {upstream} }} }}\nroutes:\n{routes}")
    }
}
