//! The edge: what a stranger can send before anything is proven, and what becomes of the connection afterwards.

mod allow;
mod ambiguous;
mod clients;
mod crowds;
mod doors;
mod early;
mod heads;
mod paths;
mod proxied;
mod slow;
mod strain;
mod upgrade;
