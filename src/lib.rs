//! draft
pub mod clock;
pub mod event;
pub mod gateway;
pub mod observe;
pub mod providers;
pub mod secret;
pub mod server;
pub mod signature;
pub mod store;
pub mod units;
pub mod upstream;
pub mod config;
pub mod cli;
