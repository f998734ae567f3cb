//! Passkeys (Web Authentication, level 3): as the second factor, or alone.
//!
//! Each ceremony has two halves. What the second needs of the first is kept here, for five minutes and for
//! one use; the browser holds its name and nothing else. The user's presence is not enough: the
//! authenticator must have asked for a finger or a code (`userVerification: required`), so that a passkey
//! alone is as good as a password with a second factor.

mod ceremony;

use std::net::IpAddr;
use std::time::Duration;

use bailiwick_types::{Incarnation, PasskeyId, Role, UserName};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use webauthn_rs::prelude::{
    AuthenticationResult, CredentialID, DiscoverableAuthentication, Passkey, PasskeyAuthentication,
    PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Url, Uuid, Webauthn, WebauthnBuilder,
};

use self::ceremony::{Ceremonies, Owner};
use super::sign_in::{Awaiting, Identified, SignInError, SignIns};
use super::{Directory, DirectoryError};
use crate::key::{KeyRing, NoEntropy};
use crate::lockout::prefix;
use crate::password::StoredPassword;
use crate::principal::Tenant;

/// How long a browser may take between the two halves.
const WAITS: Duration = Duration::from_secs(300);
/// Longest credential that a browser sends, as its JSON's text, bytes. A real one is a tenth of it.
const LONGEST: usize = 12 * 1024;
/// Longest that is kept of one, bytes. What it says beside its key could else be as long as a request.
const LONGEST_KEPT: usize = 8 * 1024;

/// A passkey as it is kept: what it is called, and the credential with its counter, as JSON.
#[derive(Clone)]
pub struct StoredPasskey {
    /// Which.
    pub id: PasskeyId,
    /// Its public key, id and counter. Nothing of it is secret.
    pub credential: String,
}

/// A passkey with whose it is.
#[derive(Clone)]
pub struct PasskeyRecord {
    /// The user's tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserName,
    /// The user's role now.
    pub role: Role,
    /// The passkey.
    pub passkey: StoredPasskey,
}

/// A passkey that was just used: the store notes its counter, if nobody else has used it meanwhile.
#[derive(Clone)]
pub struct UsedPasskey {
    /// Which.
    pub id: PasskeyId,
    /// What it was checked against.
    pub was: String,
    /// With its counter of now.
    pub now: String,
}

/// The server's address is none for which browsers make passkeys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("passkeys need a name: set server.public_url to https://NAME, or use http://localhost")]
pub struct UnfitOrigin;

/// Why a ceremony comes to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    /// No such ceremony, or too long ago, or of somebody else.
    #[error("this took too long: begin again")]
    Gone,
    /// What the authenticator says does not hold.
    #[error("this passkey was not accepted")]
    Refused,
    /// The user has none that could be asked for.
    #[error("no passkey is set up")]
    None,
    /// What is kept of a passkey cannot be read.
    #[error("a stored passkey cannot be read")]
    Broken,
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The directory could not be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Not let through.
    #[error(transparent)]
    SignIn(#[from] SignInError),
}

/// The first half of a ceremony, for the browser. Nothing of it is secret.
#[derive(Debug)]
pub struct Begun {
    /// Names the ceremony in its second half.
    pub ceremony: String,
    /// For `navigator.credentials`: the options of `create` or `get`, in their JSON form.
    pub options: Value,
}

/// A new passkey, to be kept.
pub struct NewPasskey {
    /// With its credential.
    pub passkey: StoredPasskey,
    /// The hash that the user's password fitted when they began. It must still be the kept one.
    pub fitted: StoredPassword,
}

/// What the second half of a ceremony needs.
enum Waiting {
    Registration { fitted: StoredPassword, state: Box<PasskeyRegistration> },
    AfterPassword { awaiting: Box<Awaiting>, state: Box<PasskeyAuthentication> },
    Alone { state: Box<DiscoverableAuthentication> },
}

/// Makes and checks passkeys.
pub struct Passkeys {
    webauthn: Webauthn,
    ceremonies: Ceremonies<Waiting>,
}

impl Passkeys {
    /// For people who reach the server at `public_url`; without one, on this machine as `localhost`.
    ///
    /// # Errors
    /// If no browser makes passkeys for that address: it is an IP address, or not `https`.
    pub fn new(public_url: Option<&str>, server_name: &str) -> Result<Self, UnfitOrigin> {
        let origin = Url::parse(public_url.unwrap_or("http://localhost")).map_err(|_| UnfitOrigin)?;
        let name = origin.domain().ok_or(UnfitOrigin)?.to_owned();
        if origin.scheme() != "https" && name != "localhost" {
            return Err(UnfitOrigin);
        }
        let builder = WebauthnBuilder::new(&name, &origin).map_err(|_| UnfitOrigin)?;
        let builder = builder.rp_name(server_name).timeout(WAITS).allow_any_port(public_url.is_none());
        let webauthn = builder.build().map_err(|_| UnfitOrigin)?;
        Ok(Self { webauthn, ceremonies: Ceremonies::new(WAITS) })
    }

    /// Begins to add a passkey to those that a user has.
    ///
    /// # Errors
    /// If what is kept cannot be read.
    pub fn begin_registration(
        &self,
        ring: &KeyRing,
        tenant: &Tenant,
        user: &UserName,
        others: &[StoredPasskey],
        fitted: StoredPassword,
    ) -> Result<Begun, PasskeyError> {
        let others: Vec<CredentialID> = read(others)?.iter().map(|(_, key)| key.cred_id().clone()).collect();
        let handle = Uuid::from_bytes(ring.user_handle(tenant.incarnation(), user.as_str()));
        let name = format!("{user}@{}", tenant.account());
        let begun = self.webauthn.start_passkey_registration(handle, &name, user.as_str(), Some(others));
        let (options, state) = begun.map_err(|_| PasskeyError::Broken)?;
        let mut options = shown(&options)?;
        // Kept by the authenticator with its name, so that it can sign in without one being typed.
        options["authenticatorSelection"]["residentKey"] = json!("preferred");
        let owner = Owner::Registering(tenant.incarnation(), user.clone());
        self.keep(owner, Waiting::Registration { fitted, state: Box::new(state) }, options)
    }

    /// Ends it: the passkey is to be kept.
    ///
    /// # Errors
    /// If it was not begun by the same user, or what the authenticator says does not hold.
    pub fn finish_registration(
        &self,
        tenant: &Tenant,
        user: &UserName,
        ceremony: &str,
        credential: Value,
    ) -> Result<NewPasskey, PasskeyError> {
        let Some((owner, Waiting::Registration { fitted, state })) = self.ceremonies.take(ceremony) else {
            return Err(PasskeyError::Gone);
        };
        if owner != Owner::Registering(tenant.incarnation(), user.clone()) {
            return Err(PasskeyError::Gone);
        }
        if length(&credential) > LONGEST {
            return Err(PasskeyError::Refused);
        }
        let credential: RegisterPublicKeyCredential =
            serde_json::from_value(credential).map_err(|_| PasskeyError::Refused)?;
        let made = self.webauthn.finish_passkey_registration(&credential, &state).map_err(|_| PasskeyError::Refused)?;
        let (id, credential) = (id_of(made.cred_id()), written(&made)?);
        if credential.len() > LONGEST_KEPT {
            return Err(PasskeyError::Refused);
        }
        Ok(NewPasskey { passkey: StoredPasskey { id, credential }, fitted })
    }

    /// Drops what a user had begun: how they sign in was changed.
    pub fn forget(&self, tenant: Incarnation, user: &UserName) {
        self.ceremonies.forget(&Owner::Registering(tenant, user.clone()));
        self.ceremonies.forget(&Owner::SigningIn(tenant, user.clone()));
    }

    /// Begins to complete a password by one of its user's passkeys.
    ///
    /// # Errors
    /// If there are none.
    pub fn begin_after_password(&self, awaiting: Awaiting) -> Result<Begun, PasskeyError> {
        let keys: Vec<Passkey> = read(awaiting.passkeys())?.into_iter().map(|(_, key)| key).collect();
        if keys.is_empty() {
            return Err(PasskeyError::None);
        }
        let begun = self.webauthn.start_passkey_authentication(&keys);
        let (options, state) = begun.map_err(|_| PasskeyError::Broken)?;
        let whose = awaiting.whose();
        let owner = Owner::SigningIn(whose.tenant.incarnation(), whose.user);
        let waiting = Waiting::AfterPassword { awaiting: Box::new(awaiting), state: Box::new(state) };
        self.keep(owner, waiting, shown(&options)?)
    }

    /// Begins with a passkey alone: whose, it says itself.
    ///
    /// # Errors
    /// If there is no entropy.
    pub fn begin_alone(&self, client: IpAddr) -> Result<Begun, PasskeyError> {
        let begun = self.webauthn.start_discoverable_authentication();
        let (options, state) = begun.map_err(|_| PasskeyError::Broken)?;
        self.keep(Owner::Network(prefix(client)), Waiting::Alone { state: Box::new(state) }, shown(&options)?)
    }

    fn keep(&self, owner: Owner, waiting: Waiting, options: Value) -> Result<Begun, PasskeyError> {
        let mut name = [0u8; 24];
        getrandom::fill(&mut name).map_err(|_| NoEntropy)?;
        let ceremony = URL_SAFE_NO_PAD.encode(name);
        self.ceremonies.keep(ceremony.clone(), owner, waiting);
        Ok(Begun { ceremony, options })
    }

    /// Ends either.
    ///
    /// # Errors
    /// If what the authenticator says does not hold, which counts as a failure, or the user is held.
    pub async fn finish(
        &self,
        sign_ins: &SignIns,
        directory: &impl Directory,
        (ceremony, credential): (&str, Value),
        client: IpAddr,
    ) -> Result<Identified, PasskeyError> {
        let waiting = self.ceremonies.take(ceremony).map(|(_, waiting)| waiting);
        let credential = Some(credential).filter(|credential| length(credential) <= LONGEST);
        let credential: Option<PublicKeyCredential> =
            credential.and_then(|credential| serde_json::from_value(credential).ok());
        match waiting {
            Some(Waiting::AfterPassword { awaiting, state }) => {
                let proven = sign_ins.shown(directory, *awaiting, client).await?;
                let whose = Some(proven.whose());
                let used = credential.and_then(|credential| {
                    let result = self.webauthn.finish_passkey_authentication(&credential, &state).ok()?;
                    used(proven.passkeys(), &result)
                });
                // The attempt stays a failure.
                used.map(|used| proven.with_passkey(used)).ok_or(SignInError::Wrong(whose).into())
            }
            Some(Waiting::Alone { state }) => {
                let found = match &credential {
                    Some(credential) => self.found(directory, credential, *state).await?,
                    None => None,
                };
                match found {
                    Some((record, used)) => Ok(sign_ins.by_passkey(directory, record, used, client).await?),
                    None => {
                        sign_ins.no_passkey(directory, client).await?;
                        Err(SignInError::Wrong(None).into())
                    }
                }
            }
            Some(Waiting::Registration { .. }) | None => Err(PasskeyError::Gone),
        }
    }

    /// The passkey that an authenticator speaks for, if what it says holds.
    async fn found(
        &self,
        directory: &impl Directory,
        credential: &PublicKeyCredential,
        state: DiscoverableAuthentication,
    ) -> Result<Option<(PasskeyRecord, UsedPasskey)>, PasskeyError> {
        let Ok((_, id)) = self.webauthn.identify_discoverable_authentication(credential) else { return Ok(None) };
        let Some(record) = directory.passkey(&id_of(id)).await? else { return Ok(None) };
        let [(_, key)] = &read(std::slice::from_ref(&record.passkey))?[..] else { return Ok(None) };
        let result = self.webauthn.finish_discoverable_authentication_v2(credential, state, key);
        let Ok(result) = result else { return Ok(None) };
        let used = used(std::slice::from_ref(&record.passkey), &result);
        Ok(used.map(|used| (record, used)))
    }
}

/// The passkey that was used, with its counter of now. Without the user's verification it was not.
fn used(all: &[StoredPasskey], result: &AuthenticationResult) -> Option<UsedPasskey> {
    if !result.user_verified() {
        return None;
    }
    let id = id_of(result.cred_id());
    let stored = all.iter().find(|stored| stored.id == id)?;
    let mut key: Passkey = serde_json::from_str(&stored.credential).ok()?;
    key.update_credential(result)?;
    Some(UsedPasskey { id, was: stored.credential.clone(), now: written(&key).ok()? })
}

fn read(stored: &[StoredPasskey]) -> Result<Vec<(PasskeyId, Passkey)>, PasskeyError> {
    let one = |stored: &StoredPasskey| {
        let key = serde_json::from_str(&stored.credential).map_err(|_| PasskeyError::Broken)?;
        Ok((stored.id.clone(), key))
    };
    stored.iter().map(one).collect()
}

fn written(key: &Passkey) -> Result<String, PasskeyError> {
    serde_json::to_string(key).map_err(|_| PasskeyError::Broken)
}

/// A passkey's name here: eighty bits of its credential's id's hash.
fn id_of(credential: &[u8]) -> PasskeyId {
    let hash = Sha256::digest(credential);
    PasskeyId::from_bytes(std::array::from_fn(|n| hash[n]))
}

/// The options as `PublicKeyCredential.parse…OptionsFromJSON` takes them.
fn shown(options: &impl serde::Serialize) -> Result<Value, PasskeyError> {
    let mut whole = serde_json::to_value(options).map_err(|_| PasskeyError::Broken)?;
    whole.get_mut("publicKey").map(Value::take).ok_or(PasskeyError::Broken)
}

/// How long a credential is as text, bytes.
fn length(credential: &Value) -> usize {
    credential.to_string().len()
}
