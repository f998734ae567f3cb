//! Files, keys, grants, users and spaces, written and taken away.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Gone, Life, unwell};
use crate::client::Sent;
use crate::history::Thing;
use crate::process::ROOT_KEY;
use crate::random::Random;
use crate::world::text;

/// A file's content as the history knows it.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Life {
    /// Writes a file, perhaps again, reads it, and perhaps deletes it.
    pub(super) async fn file(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        let who = &self.world.people[person];
        let path = format!("files/{:x}-{}.bin", self.seed & 0xffff, self.token());
        let thing = Thing::File { person, space: who.space.clone(), path: path.clone() };
        let url = format!("/api/v1/spaces/{}/files/content?path={path}", who.space);
        for _ in 0..=random.below(3) {
            let most = if random.percent(10) { 400_000 } else { 3_000 };
            let size = random.below(most);
            let bytes: Vec<u8> = (0..size).map(|_| random.draw().to_le_bytes()[0]).collect();
            let hash = hash(&bytes);
            self.history.ask(&thing, &hash);
            let sent = Sent { key: &who.key, bytes: Some(bytes), ..Sent::default() };
            let Ok(answer) = self.client.send("PUT", &url, sent).await else { return Ok(Err(Gone)) };
            if !answer.is_good() {
                return unwell(&url, &answer);
            }
            self.history.done(&thing, &hash);
            let Ok(read) = self.client.get(&url, &who.key).await else { return Ok(Err(Gone)) };
            if !read.is_good() {
                return unwell(&format!("what was just written: {url}"), &read);
            }
            if self::hash(&read.bytes) != hash {
                return Err(format!("{url}: other bytes than were just written"));
            }
        }
        if random.percent(25) {
            self.history.ask(&thing, "absent");
            let sent = Sent { key: &who.key, ..Sent::default() };
            let Ok(answer) = self.client.send("DELETE", &url, sent).await else { return Ok(Err(Gone)) };
            if !answer.is_good() {
                return unwell(&url, &answer);
            }
            self.history.done(&thing, "absent");
        }
        Ok(Ok(()))
    }

    pub(super) async fn people(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        match random.below(5) {
            4 => self.account(random).await,
            0 => self.key(person, random).await,
            1 => self.grant(person, random).await,
            2 => self.guest(person, random).await,
            _ => self.space(person, random).await,
        }
    }

    /// Asks for a change that makes or ends something known by its name.
    async fn change(
        &self,
        thing: &Thing,
        state: &str,
        (method, path, key): (&str, &str, &str),
        json: Option<serde_json::Value>,
    ) -> Result<Result<(), Gone>, String> {
        self.history.ask(thing, state);
        let Ok(answer) = self.client.send(method, path, Sent { key, json, ..Sent::default() }).await else {
            return Ok(Err(Gone));
        };
        if !answer.is_good() {
            return unwell(path, &answer);
        }
        self.history.done(thing, state);
        Ok(Ok(()))
    }

    /// A key more, which perhaps is revoked. Its maker is an admin of the account.
    async fn key(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        let who = &self.world.people[person % 2];
        let path = format!("/api/v1/admin/accounts/{}/users/{}/keys", who.account, who.name);
        let json = Some(json!({ "name": format!("key {}", self.token()) }));
        let sent = Sent { key: &who.key, json, ..Sent::default() };
        let Ok(answer) = self.client.send("POST", &path, sent).await else { return Ok(Err(Gone)) };
        if !answer.is_good() {
            return unwell(&path, &answer);
        }
        let made = answer.result();
        let secret = made["user_key"].as_str().or(made["key"].as_str()).ok_or(format!("no key in {made}"))?;
        let id = made["id"].as_str().or(made["key_id"].as_str()).ok_or(format!("no id in {made}"))?;
        let thing = Thing::Key { person: person % 2, id: id.to_owned(), secret: secret.to_owned() };
        self.history.done(&thing, "alive");
        if random.percent(60) {
            return self.change(&thing, "dead", ("DELETE", &format!("{path}/{id}"), &who.key), None).await;
        }
        Ok(Ok(()))
    }

    /// A user more with a grant on the shared space; the grant perhaps changes, or goes.
    async fn grant(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        let person = person % 2;
        let who = &self.world.people[person];
        let name = format!("guest-{}", self.token());
        let user = Thing::User { person, name: name.clone() };
        let users = format!("/api/v1/admin/accounts/{}/users", who.account);
        let json = json!({ "user_id": name, "role": "user" });
        if let Err(Gone) = self.change(&user, "present", ("POST", &users, &who.key), Some(json)).await? {
            return Ok(Err(Gone));
        }
        let thing = Thing::Grant { person, space: who.space.clone(), user: name.clone() };
        let grants = format!("/api/v1/spaces/{}/grants", who.space);
        for _ in 0..=random.below(2) {
            let level = *random.pick(&["read", "write", "manage"]);
            let json = json!({ "user": name, "level": level });
            if let Err(Gone) = self.change(&thing, level, ("PUT", &grants, &who.key), Some(json)).await? {
                return Ok(Err(Gone));
            }
        }
        if random.percent(40) {
            return self.change(&thing, "absent", ("DELETE", &format!("{grants}/{name}"), &who.key), None).await;
        }
        Ok(Ok(()))
    }

    /// A user more, who goes again.
    async fn guest(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        let person = person % 2;
        let who = &self.world.people[person];
        let name = format!("visitor-{}", self.token());
        let thing = Thing::User { person, name: name.clone() };
        let users = format!("/api/v1/admin/accounts/{}/users", who.account);
        let json = json!({ "user_id": name, "role": "user" });
        if let Err(Gone) = self.change(&thing, "present", ("POST", &users, &who.key), Some(json)).await? {
            return Ok(Err(Gone));
        }
        if random.percent(50) {
            return self.change(&thing, "absent", ("DELETE", &format!("{users}/{name}"), &who.key), None).await;
        }
        Ok(Ok(()))
    }

    /// An account more, which perhaps goes again with all that is in it.
    async fn account(&self, random: &mut Random) -> Result<Result<(), Gone>, String> {
        // Where all runs share one database, an earlier one may have made a namesake.
        let name = format!("tenant-{}-{}", self.token(), self.world.people[0].account);
        let thing = Thing::Account { name: name.clone() };
        let json = json!({ "account_id": name, "admin_user_id": "admin" });
        let made = self.change(&thing, "present", ("POST", "/api/v1/admin/accounts", ROOT_KEY), Some(json)).await?;
        if made.is_err() || random.percent(50) {
            return Ok(made);
        }
        self.change(&thing, "absent", ("DELETE", &format!("/api/v1/admin/accounts/{name}"), ROOT_KEY), None).await
    }

    /// A space more with a file in it; it perhaps goes again, and the file with it.
    async fn space(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        let who = &self.world.people[person];
        let json = json!({ "name": format!("space {}", self.token()) });
        let sent = Sent { key: &who.key, json: Some(json), ..Sent::default() };
        let Ok(answer) = self.client.send("POST", "/api/v1/spaces", sent).await else { return Ok(Err(Gone)) };
        if !answer.is_good() {
            return unwell("a space", &answer);
        }
        let id = text(&answer.result(), "id")?;
        let thing = Thing::Space { person, id: id.clone() };
        self.history.done(&thing, "present");
        let url = format!("/api/v1/spaces/{id}/files/content?path=one.txt");
        let sent = Sent { key: &who.key, bytes: Some(id.clone().into_bytes()), ..Sent::default() };
        let Ok(answer) = self.client.send("PUT", &url, sent).await else { return Ok(Err(Gone)) };
        if !answer.is_good() {
            return unwell(&url, &answer);
        }
        if random.percent(50) {
            return self.change(&thing, "absent", ("DELETE", &format!("/api/v1/spaces/{id}"), &who.key), None).await;
        }
        let file = Thing::File { person, space: id.clone(), path: "one.txt".to_owned() };
        self.history.done(&file, &hash(id.as_bytes()));
        Ok(Ok(()))
    }
}
