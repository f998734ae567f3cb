//! Who is calling, and what they may do.
//!
//! `authn` turns a credential into a [`Principal`]; nothing else can. `access` turns a principal, a
//! verb and a resource into a [`Permit`], or refuses. What changes the database takes a permit; what
//! acts outside the database takes a [`Recorded`]. Neither can be made by hand:
//!
//! ```compile_fail,E0451
//! // Forging a permit: its fields are private.
//! use bailiwick_auth::access::{Permit, verb::DeleteSpace};
//! fn forge(scope: bailiwick_auth::Scope, resource: bailiwick_auth::access::Space) -> Permit<DeleteSpace> {
//!     Permit { scope, resource, verb: std::marker::PhantomData }
//! }
//! ```
//!
//! ```compile_fail,E0308
//! // The wrong verb: a permit to read is not a permit to delete.
//! use bailiwick_auth::access::{Permit, verb::{DeleteSpace, ReadSpace}};
//! fn delete(_: Permit<DeleteSpace>) {}
//! fn misuse(permit: Permit<ReadSpace>) { delete(permit) }
//! ```
//!
//! ```compile_fail,E0382
//! // Spending twice: a permit is moved by its use.
//! use bailiwick_auth::access::{Permit, verb::DeleteSpace};
//! fn delete(_: Permit<DeleteSpace>) {}
//! fn misuse(permit: Permit<DeleteSpace>) { delete(permit); delete(permit) }
//! ```
//!
//! ```compile_fail,E0451
//! // Naming another tenant's thing: a resource comes from the store, with the tenant that it was
//! // read under; its fields cannot be written.
//! use bailiwick_auth::{Tenant, access::Space};
//! fn misuse(mine: Space, other: Tenant) -> Space { Space { tenant: other, ..mine } }
//! ```
//!
//! ```compile_fail,E0451
//! // Making a principal without authentication.
//! use bailiwick_auth::Principal;
//! fn forge() -> Principal { Principal { standing: unimplemented!() } }
//! ```
//!
//! ```compile_fail,E0277
//! // Inventing a verb: the list is sealed.
//! enum Anything {}
//! impl bailiwick_auth::access::Verb for Anything {
//!     type Resource = bailiwick_auth::access::Host;
//!     const NAME: &'static str = "account.delete";
//! }
//! ```
//!
//! The positive control: with a permit of the right verb, once, the same code compiles.
//!
//! ```
//! use bailiwick_auth::access::{Permit, verb::DeleteSpace};
//! fn delete(_: Permit<DeleteSpace>) {}
//! fn right(permit: Permit<DeleteSpace>) { delete(permit) }
//! ```

pub mod access;
pub mod authn;
pub mod for_store;
pub mod key;
pub mod lockout;
pub mod password;
mod principal;
pub mod totp;

pub use access::{Permit, Recorded, Refusal, Scope};
pub use principal::{Bounds, Credential, HostScope, NoTenant, PasswordMark, Principal, RootMark, Tenant};
