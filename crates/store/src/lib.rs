//! The store: the only crate that knows SQL, the data directory, and where a tenant's things lie.
//!
//! Every changing act takes a permit by value and writes its event in its own transaction; every read
//! takes a scope or a permit, and its statements are bound to that scope's tenant before anything else.
//! One file names one resource, as in every other layer.

pub mod account;
pub mod agent;
pub mod application;
pub mod approval;
pub mod area;
pub mod checkpoint;
pub mod client;
pub mod data_key;
pub mod device;
mod directory;
mod engine;
mod error;
pub mod factor;
pub mod job;
pub mod key;
pub mod log;
mod migrate;
pub mod notification;
pub mod passkey;
pub mod password;
pub mod postgres;
pub mod quota;
pub mod secret;
pub mod session;
mod sign_in;
pub mod snapshot;
pub mod space;
mod sql;
pub mod storage;
mod store;
pub mod turn;
pub mod url;
pub mod usage;
pub mod user;

pub use error::StoreError;
pub use store::Store;
pub use url::DatabaseUrl;
