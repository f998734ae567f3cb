//! A person signs in: name and password or the word of an identity provider, then a second factor where there
//! is one.
//!
//! Each stage is a type that only the stage before can make, so that a door cannot leave one out: a
//! [`Proven`] password or provider's word is no [`Principal`] yet, and becomes one only with what its user's set-up asks for.
//! Whoever is not there costs as much time as whoever is, and is answered alike.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_types::{AccountName, Role, UserName};

use super::oidc::{ProviderError, SecondFactor, Vouched};
use super::passkey::{PasskeyRecord, StoredPasskey, UsedPasskey};
use super::{Directory, DirectoryError};
use crate::key::{KeyHash, KeyRing};
use crate::lockout::{Attempt, Held, Lockout, LockoutSettings, prefix};
use crate::password::{Busy, Checked, Password, Passwords, StoredPassword};
use crate::principal::{Bounds, Credential, Found, Member, Principal, Tenant};
use crate::totp;

/// What an attempt to sign in is held against.
#[derive(Clone)]
pub struct SignInRecord {
    /// The user's tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserName,
    /// The user's role now.
    pub role: Role,
    /// The password; a user of keys alone has none.
    pub password: Option<StoredPassword>,
    /// The authenticator app, once it is set up.
    pub totp: Option<StoredTotp>,
    /// The passkeys.
    pub passkeys: Vec<StoredPasskey>,
}

impl SignInRecord {
    /// Whether the user has set up more than what is shown first.
    pub fn has_second_factor(&self) -> bool {
        self.totp.is_some() || !self.passkeys.is_empty()
    }
}

/// An authenticator app's secret, sealed, and the last step that was used.
#[derive(Clone)]
pub struct StoredTotp {
    /// Opened by crate `vault`.
    pub sealed: Vec<u8>,
    /// A code of this step or an earlier one was used.
    pub last_step: u64,
}

/// Who somebody says they are, and what they know.
pub struct Claim<'a> {
    /// `user`, or `user@account`.
    pub name: &'a str,
    /// The account, where it is said apart; then the name is the user's alone.
    pub account: Option<AccountName>,
    /// As typed.
    pub password: Password,
    /// From where.
    pub client: IpAddr,
}

/// Why somebody is not let in. What stands in it is for the record, and not for the caller.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Nobody of that name, or not with that password: which, is not said.
    #[error("Invalid username or password.")]
    Wrong(Option<Whose>),
    /// Too many failures.
    #[error(transparent)]
    Held(Held),
    /// Too many at once.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The directory could not be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// As whom somebody tried to sign in.
#[derive(Clone)]
pub struct Whose {
    /// The tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserName,
}

impl std::fmt::Debug for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.tenant.account())
    }
}

impl From<Held> for SignInError {
    fn from(held: Held) -> Self {
        match held {
            Held::Directory(error) => Self::Directory(error),
            held => Self::Held(held),
        }
    }
}

/// What somebody has shown first.
#[derive(Clone)]
pub enum First {
    /// Their password.
    Password {
        /// The hash that it fitted. It must still be the kept one when the login is made: a password that is
        /// changed meanwhile opens nothing any more.
        fitted: StoredPassword,
        /// Its hash of today's settings, if the kept one is another.
        anew: Option<StoredPassword>,
    },
    /// The word of an identity provider.
    Provider {
        /// Of `[auth.oidc.<name>]`.
        name: String,
        /// Whose second factor counts.
        second_factor: SecondFactor,
    },
    /// Nothing: a passkey is first and second at once.
    Passkey,
}

/// The right password, or a provider's word. Nobody is anybody yet: see what else is asked for.
#[must_use]
pub struct Proven {
    record: SignInRecord,
    first: First,
    attempt: Attempt,
    client: IpAddr,
}

/// What somebody has shown first whose passkey is waited for.
pub struct Awaiting {
    record: SignInRecord,
    first: First,
}

impl Awaiting {
    /// As whom.
    pub fn whose(&self) -> Whose {
        Whose { tenant: self.record.tenant.clone(), user: self.record.user.clone() }
    }

    /// Their passkeys.
    pub fn passkeys(&self) -> &[StoredPasskey] {
        &self.record.passkeys
    }
}

/// By what a person completed what they showed first, as the store has to note it.
#[derive(Clone)]
pub enum Factor {
    /// It was enough.
    Alone,
    /// A code of the authenticator app. It is used up.
    Totp {
        /// Its step.
        step: u64,
    },
    /// A passkey, after it.
    Passkey(UsedPasskey),
    /// A passkey alone, which its holder unlocked: it is had, and known or been, at once.
    PasskeyAlone(UsedPasskey),
    /// A recovery code. Whether there is such a one, the store says; it is used up.
    Recovery(KeyHash),
}

impl Factor {
    /// What both together are called on record and in the list of logins.
    pub fn with(&self, first: &First) -> String {
        let shown = match first {
            First::Password { .. } => "password".to_owned(),
            First::Provider { name, .. } => format!("oidc:{name}"),
            First::Passkey => "passkey".to_owned(),
        };
        match self {
            Self::Alone | Self::PasskeyAlone(_) => shown,
            Self::Totp { .. } => shown + "+totp",
            Self::Passkey(_) => shown + "+passkey",
            Self::Recovery(_) => shown + "+recovery",
        }
    }
}

/// Somebody who showed all that was asked for.
#[must_use]
pub struct Identified {
    /// Who. Good for the act of signing in.
    pub principal: Principal,
    /// By what.
    pub first: First,
    /// And by what else.
    pub factor: Factor,
    /// To be ended when the login is there.
    pub attempt: Attempt,
}

/// Checks who signs in.
pub struct SignIns {
    passwords: Passwords,
    lockout: Lockout,
    under_way: UnderWay,
}

impl SignIns {
    /// Over these threads, with these limits.
    pub fn new(passwords: Passwords, lockout: LockoutSettings) -> Self {
        Self { passwords, lockout: Lockout::new(lockout), under_way: UnderWay::default() }
    }

    /// What hashes passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// What counts failures.
    pub fn lockout(&self) -> &Lockout {
        &self.lockout
    }

    /// Checks a password.
    ///
    /// # Errors
    /// [`SignInError`]; unless it is the directory's fault or there are too many at once, it counts.
    pub async fn by_password(&self, directory: &impl Directory, claim: Claim<'_>) -> Result<Proven, SignInError> {
        let subject = subject(claim.name, claim.account.as_ref());
        let named = resolve(directory, claim.name, claim.account).await?;
        // Few at once of one user and from one address: the line before the threads is everybody's.
        let _place = self.under_way.enter(subject.as_ref(), claim.client).ok_or(Busy)?;
        let user = subject.as_ref().map(|(account, user)| (account, user));
        let attempt = self.lockout.begin(directory, user, claim.client).await?;
        let record = match &named {
            Some((account, user)) => match directory.sign_in(account, user).await {
                Ok(record) => record,
                // Nobody guessed: the directory was away.
                Err(error) => {
                    let _ = self.lockout.forgive(directory, attempt).await;
                    return Err(error.into());
                }
            },
            None => None,
        };
        let stored = record.as_ref().and_then(|record| record.password.clone());
        let checked = match self.passwords.check(claim.password, stored.clone()).await {
            Ok(checked) => checked,
            Err(busy) => {
                self.lockout.forgive(directory, attempt).await?;
                return Err(busy.into());
            }
        };
        match (checked, record, stored) {
            (Checked::Right { anew }, Some(record), Some(fitted)) => {
                Ok(Proven { record, first: First::Password { fitted, anew }, attempt, client: claim.client })
            }
            (_, record, _) => {
                let whose = record.map(|record| Whose { tenant: record.tenant, user: record.user });
                Err(SignInError::Wrong(whose))
            }
        }
    }

    /// Asks somebody who is known for their password once more, and says which kept one it fitted.
    ///
    /// # Errors
    /// As [`Self::by_password`].
    pub async fn confirm(
        &self,
        directory: &impl Directory,
        principal: &Principal,
        password: Password,
    ) -> Result<StoredPassword, SignInError> {
        let (Some(tenant), Some(user)) = (principal.tenant(), principal.user()) else {
            return Err(SignInError::Wrong(None));
        };
        let (name, account) = (user.as_str(), Some(tenant.account().clone()));
        let claim = Claim { name, account, password, client: principal.address() };
        let proven = self.by_password(directory, claim).await?;
        // Where more would be asked for, the password alone clears nobody's failures: it would make room for
        // guesses at what else there is.
        if proven.totp().is_some() || proven.has_passkeys() {
            self.lockout.forgive(directory, proven.attempt).await?;
        } else {
            self.lockout.succeed(directory, proven.attempt).await?;
        }
        match proven.first {
            First::Password { fitted, .. } => Ok(fitted),
            First::Provider { .. } | First::Passkey => Err(SignInError::Wrong(None)),
        }
    }

    /// Counts a guess of somebody who is known at something that is no password.
    ///
    /// # Errors
    /// If there were too many.
    pub async fn guess(&self, directory: &impl Directory, principal: &Principal) -> Result<Attempt, SignInError> {
        let user = principal.tenant().map(Tenant::account).zip(principal.user());
        Ok(self.lockout.begin(directory, user, principal.address()).await?)
    }

    /// The attempt was no failure of whoever made it.
    ///
    /// # Errors
    /// If the counts cannot be written.
    pub async fn no_failure(&self, directory: &impl Directory, attempt: Attempt) -> Result<(), DirectoryError> {
        self.lockout.forgive(directory, attempt).await
    }

    /// The login is there: the user's failures are forgotten.
    ///
    /// # Errors
    /// If the counts cannot be written.
    pub async fn succeeded(&self, directory: &impl Directory, attempt: Attempt) -> Result<(), DirectoryError> {
        self.lockout.succeed(directory, attempt).await
    }

    /// A passkey is asked for after the password: that is a step and no failure. What was proven is kept
    /// for it, without the attempt.
    ///
    /// # Errors
    /// If the counts cannot be written.
    pub async fn awaiting(&self, directory: &impl Directory, proven: Proven) -> Result<Awaiting, DirectoryError> {
        let Proven { record, first, attempt, client: _ } = proven;
        self.lockout.forgive(directory, attempt).await?;
        Ok(Awaiting { record, first })
    }

    /// Whoever passed the password has shown something for a passkey, which counts as a guess until it is
    /// found right.
    ///
    /// # Errors
    /// If there were too many failures.
    pub async fn shown(
        &self,
        directory: &impl Directory,
        awaiting: Awaiting,
        client: IpAddr,
    ) -> Result<Proven, SignInError> {
        let Awaiting { record, first } = awaiting;
        let user = Some((record.tenant.account(), &record.user));
        let attempt = self.lockout.begin(directory, user, client).await?;
        Ok(Proven { record, first, attempt, client })
    }

    /// An identity provider vouches for somebody. Whoever is locked out stays so.
    ///
    /// # Errors
    /// If there is no such user, they are less at the provider than here, or there were too many failures.
    pub async fn by_provider(
        &self,
        directory: &impl Directory,
        vouched: Vouched,
        client: IpAddr,
    ) -> Result<Proven, ProviderError> {
        let Vouched { provider, second_factor, account, user, role, incarnation } = vouched;
        let read = directory.sign_in(&account, &user).await.map_err(SignInError::from)?;
        let record = read.ok_or(ProviderError::Stranger)?;
        // A namesake that was made anew is somebody else.
        if incarnation.is_some_and(|then| then != record.tenant.incarnation().to_string()) {
            return Err(ProviderError::Gone);
        }
        // A login is all that its user is; where a token would be less, there is none.
        if role.is_some_and(|role| role < record.role) {
            return Err(ProviderError::Narrowed);
        }
        let begun = self.lockout.begin(directory, Some((&account, &user)), client).await;
        let attempt = begun.map_err(SignInError::from)?;
        let first = First::Provider { name: provider, second_factor };
        Ok(Proven { record, first, attempt, client })
    }

    /// Counts an answer of a provider that may not hold, against the address alone: of whom it should be,
    /// nobody knows.
    ///
    /// # Errors
    /// If there were too many.
    pub async fn answer(&self, directory: &impl Directory, client: IpAddr) -> Result<Attempt, SignInError> {
        Ok(self.lockout.begin(directory, None, client).await?)
    }

    /// Somebody has shown a passkey alone, and it was right. Whoever is locked out stays so.
    ///
    /// # Errors
    /// If there were too many failures.
    pub async fn by_passkey(
        &self,
        directory: &impl Directory,
        record: PasskeyRecord,
        used: UsedPasskey,
        client: IpAddr,
    ) -> Result<Identified, SignInError> {
        let user = Some((record.tenant.account(), &record.user));
        let attempt = self.lockout.begin(directory, user, client).await?;
        let PasskeyRecord { tenant, user, role, .. } = record;
        let found = Found::User(Member { tenant, user, role, bounds: Bounds::none() });
        let principal = Principal { found, credential: Credential::SignIn, address: client };
        Ok(Identified { principal, first: First::Passkey, factor: Factor::PasskeyAlone(used), attempt })
    }

    /// Counts what was shown for a passkey and is none, against the address alone: whose it should be, nobody
    /// knows.
    ///
    /// # Errors
    /// If there were too many.
    pub async fn no_passkey(&self, directory: &impl Directory, client: IpAddr) -> Result<(), SignInError> {
        let _stays = self.lockout.begin(directory, None, client).await?;
        Ok(())
    }

    /// A second factor is asked for: that is a step and no failure.
    ///
    /// # Errors
    /// If the counts cannot be written.
    pub async fn asked_for_more(&self, directory: &impl Directory, proven: Proven) -> Result<(), DirectoryError> {
        self.lockout.forgive(directory, proven.attempt).await
    }
}

impl Proven {
    /// As whom.
    pub fn whose(&self) -> Whose {
        Whose { tenant: self.record.tenant.clone(), user: self.record.user.clone() }
    }

    /// The authenticator app, where there is one.
    pub fn totp(&self) -> Option<&StoredTotp> {
        self.record.totp.as_ref()
    }

    /// Whether a passkey can be the second factor.
    pub fn has_passkeys(&self) -> bool {
        !self.record.passkeys.is_empty()
    }

    /// With nothing else.
    ///
    /// # Errors
    /// The same again, if a second factor is set up.
    #[expect(clippy::result_large_err, reason = "it is handed back whole, to be completed otherwise")]
    pub fn alone(self) -> Result<Identified, Self> {
        let trusted = matches!(self.first, First::Provider { second_factor: SecondFactor::Provider, .. });
        if !trusted && self.record.has_second_factor() {
            return Err(self);
        }
        Ok(self.identified(Factor::Alone))
    }

    /// With a code of the authenticator app, whose secret was opened. A code that was used is none.
    ///
    /// # Errors
    /// The same again, if the code is wrong or no app is set up.
    #[expect(clippy::result_large_err, reason = "it is handed back whole, to be completed otherwise")]
    pub fn with_totp(self, secret: &[u8], code: &str, unix_seconds: u64) -> Result<Identified, Self> {
        let last = self.totp().map(|stored| stored.last_step);
        match last.and_then(|last| totp::check(secret, code, unix_seconds, last)) {
            Some(step) => Ok(self.identified(Factor::Totp { step })),
            None => Err(self),
        }
    }

    /// With a recovery code, which the store still has to find.
    pub fn with_recovery_code(self, ring: &KeyRing, code: &str) -> Identified {
        let whose = &self.record;
        let hash = ring.code_hash(whose.tenant.incarnation(), whose.user.as_str(), code);
        self.identified(Factor::Recovery(hash))
    }

    /// With a passkey that was found right.
    pub(super) fn with_passkey(self, used: UsedPasskey) -> Identified {
        self.identified(Factor::Passkey(used))
    }

    /// The user's passkeys.
    pub(super) fn passkeys(&self) -> &[StoredPasskey] {
        &self.record.passkeys
    }

    fn identified(self, factor: Factor) -> Identified {
        let SignInRecord { tenant, user, role, .. } = self.record;
        let found = Found::User(Member { tenant, user, role, bounds: Bounds::none() });
        let principal = Principal { found, credential: Credential::SignIn, address: self.client };
        Identified { principal, first: self.first, factor, attempt: self.attempt }
    }
}

/// Attempts of one user that are checked at once.
const AT_ONCE_USER: u32 = 4;
/// Attempts from one address that are checked at once.
const AT_ONCE_ADDRESS: u32 = 16;

/// Attempts that are being checked, by user and by address.
#[derive(Default)]
struct UnderWay(Arc<Mutex<HashMap<String, u32>>>);

/// A place among them, for as long as it is kept.
struct Place {
    all: Arc<Mutex<HashMap<String, u32>>>,
    of: Vec<String>,
}

impl UnderWay {
    fn enter(&self, user: Option<&(AccountName, UserName)>, client: IpAddr) -> Option<Place> {
        let of_user = user.map(|(account, user)| (format!("user:{account}/{user}"), AT_ONCE_USER));
        let wanted = of_user.into_iter().chain([(prefix(client), AT_ONCE_ADDRESS)]);
        let mut place = Place { all: Arc::clone(&self.0), of: Vec::with_capacity(2) };
        for (key, most) in wanted {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let there = all.entry(key.clone()).or_default();
            if *there >= most {
                return None; // the place that was taken already is given back
            }
            *there += 1;
            place.of.push(key);
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.of {
            if let Some(there) = all.get_mut(key) {
                *there -= 1;
                if *there == 0 {
                    all.remove(key);
                }
            }
        }
    }
}

/// As whom an attempt is counted: by the text alone. If it depended on which accounts there are, the count
/// would tell.
pub(crate) fn subject(name: &str, account: Option<&AccountName>) -> Option<(AccountName, UserName)> {
    if let Some(account) = account {
        return name.parse().ok().map(|user| (account.clone(), user));
    }
    let split = name.rsplit_once('@').and_then(|(user, account)| Some((account.parse().ok()?, user.parse().ok()?)));
    split.or_else(|| name.parse().ok().map(|user| (AccountName::first(), user)))
}

/// Whose name that is, whether or not there is such a user. `user@account` names that account if there is
/// one; else the whole is a user of the first account, whose names may have an `@`, too.
pub(super) async fn resolve(
    directory: &impl Directory,
    name: &str,
    account: Option<AccountName>,
) -> Result<Option<(AccountName, UserName)>, DirectoryError> {
    if let Some(account) = account {
        return Ok(name.parse().ok().map(|user| (account, user)));
    }
    if let Some((user, account)) = name.rsplit_once('@')
        && let (Ok(user), Ok(account)) = (user.parse::<UserName>(), account.parse::<AccountName>())
        && directory.tenant(&account).await?.is_some()
    {
        return Ok(Some((account, user)));
    }
    Ok(name.parse().ok().map(|user| (AccountName::first(), user)))
}
