//! A Pingora proxy that is not Hookward, with some of its paths protected by it.
//!
//! `guarded_proxy LISTEN APPLICATION FILE` proxies everything to the application, as it did before; only the webhook
//! routes of FILE, an ordinary configuration of Hookward, are answered by the guard. `cargo run --example guarded_proxy --
//! 127.0.0.1:8000 127.0.0.1:3000 webhooks.yaml`

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use hookward::gateway::Guard;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Proxy {
    application: String,
    guard: Arc<Guard>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    /// True: the guard has answered.
    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        Ok(self.guard.request_filter(session).await)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.application, false, String::new())))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(application), Some(file)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("guarded_proxy LISTEN APPLICATION FILE".into());
    };
    let guard = hookward::open(file)?;
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Proxy { application, guard });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever()
}
