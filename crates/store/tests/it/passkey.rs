//! Passkeys: kept once, used once for each thing they say, and gone with whose they are.

use bailiwick_auth::access::verb::{DeleteUser, ReadUser, ResetFactors, ResetPassword, SetFactors, SignIn};
use bailiwick_auth::authn::Directory;
use bailiwick_auth::authn::oidc::SecondFactor;
use bailiwick_auth::authn::passkey::{NewPasskey, StoredPasskey, UsedPasskey};
use bailiwick_auth::authn::sign_in::{Factor, First};
use bailiwick_auth::key::KeyHash;
use bailiwick_auth::password::StoredPassword;
use bailiwick_store::StoreError;
use bailiwick_store::device::NewDevice;
use bailiwick_store::passkey::NewCodes;
use bailiwick_types::PasskeyId;

use crate::fixture::{Fixture, House, Person, conflict, not_found, permit};
use crate::on_every_backend;

fn passkey(n: u8) -> StoredPasskey {
    StoredPasskey { id: PasskeyId::from_bytes([n; 10]), credential: format!("{{\"counter\":{n}}}") }
}

/// The hash of that person's password.
fn hash() -> StoredPassword {
    StoredPassword::from_text("not looked at".to_owned())
}

/// Gives that person a password, by the operator.
async fn password(f: &Fixture, house: &House, person: &Person, hash: StoredPassword) {
    let scope = f.set_up(house).await;
    let reset = permit::<ResetPassword>(&scope, scope.user_named(person.name.clone()));
    f.store.password_reset(reset, hash).await.unwrap();
}

async fn add(f: &Fixture, person: &Person, n: u8, codes: &[KeyHash]) -> Result<NewCodes, StoreError> {
    let scope = f.scope(person).await;
    let set = permit::<SetFactors>(&scope, scope.user_named(person.name.clone()));
    let made = NewPasskey { passkey: passkey(n), fitted: hash() };
    f.store.passkey_create(set, made, format!("key {n}"), codes.to_vec()).await
}

async fn remove(f: &Fixture, person: &Person, n: u8, shown: Factor) -> Result<(), StoreError> {
    let scope = f.scope(person).await;
    let set = permit::<SetFactors>(&scope, scope.user_named(person.name.clone()));
    f.store.passkey_remove(set, passkey(n).id, shown).await
}

async fn sign_in(f: &Fixture, person: &Person, factor: Factor) -> Result<(), StoreError> {
    sign_in_by(f, person, First::Passkey, factor).await
}

async fn sign_in_by(f: &Fixture, person: &Person, first: First, factor: Factor) -> Result<(), StoreError> {
    let scope = f.scope(person).await;
    let token = f.walk.ring().make_token().unwrap();
    let new = NewDevice { token: &token, name: "phone".to_owned(), first, factor };
    let permit = permit::<SignIn>(&scope, scope.user_named(person.name.clone()));
    f.store.device_create(permit, new).await
}

/// How many passkeys and recovery codes that person has.
async fn has(f: &Fixture, person: &Person) -> (usize, u64) {
    let scope = f.scope(person).await;
    let read = || permit::<ReadUser>(&scope, scope.user_named(person.name.clone()));
    let factors = f.store.factors_read(read()).await.unwrap();
    let listed = f.store.passkey_list(read()).await.unwrap();
    assert_eq!(listed.len() as u64, factors.passkeys);
    (listed.len(), factors.recovery_codes)
}

async fn codes(f: &Fixture, person: &Person) -> Vec<KeyHash> {
    let tenant = f.scope(person).await.tenant().incarnation();
    let hash = |n: u8| f.walk.ring().code_hash(tenant, person.name.as_str(), &format!("code{n}"));
    (0..3).map(hash).collect()
}

fn used(n: u8, was: &str, now: &str) -> UsedPasskey {
    UsedPasskey { id: passkey(n).id, was: was.to_owned(), now: now.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn i06_a_passkey_is_one_persons_and_good_once_for_what_it_says() {
    on_every_backend(async |f| {
        let (alice, bob) = (&f.acme.admin, &f.globex.admin);
        password(&f, &f.acme, alice, hash()).await;
        password(&f, &f.globex, bob, hash()).await;
        let alices = codes(&f, alice).await;
        assert_eq!(add(&f, alice, 1, &alices).await.unwrap(), NewCodes::Kept);
        assert_eq!(add(&f, alice, 2, &codes(&f, bob).await).await.unwrap(), NewCodes::NotNeeded);
        assert_eq!(add(&f, bob, 3, &codes(&f, bob).await).await.unwrap(), NewCodes::Kept);
        // Known is known, in whichever account.
        assert_eq!(conflict(add(&f, bob, 1, &[]).await.map(drop)), "passkey_known");
        assert_eq!((has(&f, alice).await, has(&f, bob).await), ((2, 3), (1, 3)));
        let found = f.store.passkey(&passkey(3).id).await.unwrap().unwrap();
        assert_eq!((found.tenant.account(), &found.user), (&f.globex.account, &bob.name));
        assert!(f.store.passkey(&passkey(9).id).await.unwrap().is_none());
        // Of two who use it at once with the same word, one is let in; nobody by another's.
        let says = || Factor::PasskeyAlone(used(1, "{\"counter\":1}", "{\"counter\":5}"));
        let (one, two) = tokio::join!(sign_in(&f, alice, says()), sign_in(&f, alice, says()));
        assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
        assert_eq!(conflict(sign_in(&f, alice, says()).await), "code_used");
        let next = || Factor::PasskeyAlone(used(1, "{\"counter\":5}", "{\"counter\":6}"));
        assert_eq!(conflict(sign_in(&f, bob, next()).await), "code_used");
        assert_eq!(conflict(sign_in(&f, &f.acme.member, next()).await), "code_used");
        sign_in(&f, alice, next()).await.unwrap();
        // Taken away against a code that is one's own; the last factor takes the codes along.
        let foreign = Factor::Recovery(codes(&f, bob).await.swap_remove(0));
        assert_eq!(conflict(remove(&f, alice, 1, foreign.clone()).await), "code_used");
        not_found(remove(&f, alice, 3, Factor::Recovery(alices[0].clone())).await);
        remove(&f, alice, 1, Factor::Recovery(alices[0].clone())).await.unwrap();
        assert_eq!(has(&f, alice).await, (1, 2));
        assert_eq!(conflict(remove(&f, alice, 2, Factor::Recovery(alices[0].clone())).await), "code_used");
        remove(&f, alice, 2, Factor::Recovery(alices[1].clone())).await.unwrap();
        assert_eq!(has(&f, alice).await, (0, 0));
        assert_eq!(has(&f, bob).await, (1, 3), "nothing happened to bob's");
        // What was taken away is nobody's, and may be made again.
        assert!(f.store.passkey(&passkey(1).id).await.unwrap().is_none());
        assert_eq!(add(&f, bob, 1, &[]).await.unwrap(), NewCodes::NotNeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i06_passkeys_go_with_their_user_and_with_a_reset() {
    on_every_backend(async |f| {
        let (bob, vera) = (&f.acme.member, &f.acme.viewer);
        for (house, person) in [(&f.acme, bob), (&f.acme, vera), (&f.globex, &f.globex.member)] {
            password(&f, house, person, hash()).await;
        }
        add(&f, bob, 1, &codes(&f, bob).await).await.unwrap();
        add(&f, vera, 2, &codes(&f, vera).await).await.unwrap();
        add(&f, &f.globex.member, 3, &[]).await.unwrap();
        let scope = f.scope(&f.acme.admin).await;
        let reset = permit::<ResetFactors>(&scope, scope.user_named(vera.name.clone()));
        f.store.factors_reset(reset).await.unwrap();
        assert_eq!((has(&f, vera).await, has(&f, bob).await), ((0, 0), (1, 3)));
        let delete = permit::<DeleteUser>(&scope, scope.user_named(bob.name.clone()));
        f.store.user_delete(delete).await.unwrap();
        for (n, there) in [(1, false), (2, false), (3, true)] {
            assert_eq!(f.store.passkey(&passkey(n).id).await.unwrap().is_some(), there, "{n}");
        }
        // Twenty at most.
        for n in 10..30 {
            add(&f, vera, n, &[]).await.unwrap();
        }
        assert_eq!(conflict(add(&f, vera, 30, &[]).await.map(drop)), "too_many_passkeys");
        assert!(f.store.passkey(&passkey(30).id).await.unwrap().is_none());
        add(&f, &f.globex.member, 30, &[]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_a_providers_word_is_not_enough_once_a_second_factor_is_set_up() {
    on_every_backend(async |f| {
        let (alice, bob) = (&f.acme.admin, &f.globex.admin);
        password(&f, &f.acme, alice, hash()).await;
        password(&f, &f.globex, bob, hash()).await;
        let by = |second_factor| First::Provider { name: "corp".to_owned(), second_factor };
        sign_in_by(&f, alice, by(SecondFactor::Own), Factor::Alone).await.unwrap();
        let alices = codes(&f, alice).await;
        add(&f, alice, 1, &alices).await.unwrap();
        // Also if it was set up after the provider's word was looked at, and before the login is made.
        let alone = sign_in_by(&f, alice, by(SecondFactor::Own), Factor::Alone).await;
        assert_eq!(conflict(alone), "sign_in_changed");
        sign_in_by(&f, alice, by(SecondFactor::Own), Factor::Recovery(alices[0].clone())).await.unwrap();
        let again = sign_in_by(&f, alice, by(SecondFactor::Own), Factor::Recovery(alices[0].clone())).await;
        assert_eq!(conflict(again), "code_used");
        sign_in_by(&f, alice, by(SecondFactor::Provider), Factor::Alone).await.unwrap();
        sign_in_by(&f, bob, by(SecondFactor::Own), Factor::Alone).await.unwrap();
        // Nothing at all is nothing.
        assert_eq!(conflict(sign_in_by(&f, bob, First::Passkey, Factor::Alone).await), "sign_in_changed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i06_a_passkey_is_begun_with_all_that_is_asked_for_and_kept_while_the_password_stays() {
    on_every_backend(async |f| {
        let (alice, carol) = (&f.acme.admin, &f.globex.member);
        password(&f, &f.acme, alice, hash()).await;
        password(&f, &f.globex, carol, hash()).await;
        let begin = async |person: &Person, shown: Factor| {
            let scope = f.scope(person).await;
            let set = permit::<SetFactors>(&scope, scope.user_named(person.name.clone()));
            f.store.passkey_begin(&set, First::Password { fitted: hash(), anew: None }, shown).await
        };
        let alices = codes(&f, alice).await;
        assert!(begin(alice, Factor::Alone).await.unwrap().is_empty());
        add(&f, alice, 1, &alices).await.unwrap();
        // Now there is a second factor, and the password alone begins nothing; a code does, once.
        assert_eq!(conflict(begin(alice, Factor::Alone).await), "sign_in_changed");
        assert_eq!(conflict(begin(alice, Factor::Recovery(codes(&f, carol).await.remove(0))).await), "code_used");
        assert_eq!(begin(alice, Factor::Recovery(alices[0].clone())).await.unwrap().len(), 1);
        assert_eq!(conflict(begin(alice, Factor::Recovery(alices[0].clone())).await), "code_used");
        // The password is another one since: what was begun is not kept.
        password(&f, &f.acme, alice, StoredPassword::from_text("another".to_owned())).await;
        assert_eq!(conflict(add(&f, alice, 2, &[]).await.map(drop)), "sign_in_changed");
        assert!(f.store.passkey(&passkey(2).id).await.unwrap().is_none());
        add(&f, carol, 2, &[]).await.unwrap();
    })
    .await;
}
