//! An authenticator in software (Web Authentication, level 3, section 6): it makes a passkey and speaks for
//! it, truly or not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The user was there.
const PRESENT: u8 = 0x01;
/// The user showed a finger or a code.
const VERIFIED: u8 = 0x04;
/// A new credential stands in what is signed.
const ATTESTED: u8 = 0x40;

pub(super) struct Authenticator {
    key: EcdsaKeyPair,
    id: [u8; 16],
    user_handle: Value,
    /// How often it has spoken.
    pub(super) counter: u32,
    /// Where the browser says that it is.
    pub(super) origin: &'static str,
    /// For which name it speaks.
    pub(super) name: &'static str,
    /// What it says about its user.
    pub(super) flags: u8,
}

impl Authenticator {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let mut id = [0; 16];
        ring::rand::SecureRandom::fill(&random, &mut id).unwrap();
        let (origin, name) = ("http://localhost", "localhost");
        Self { key, id, user_handle: Value::Null, counter: 0, origin, name, flags: PRESENT | VERIFIED }
    }

    /// It asks for no finger.
    pub(super) fn unverified(&mut self) {
        self.flags = PRESENT;
    }

    /// What `navigator.credentials.create` gives.
    pub(super) fn create(&mut self, options: &Value) -> Value {
        self.user_handle = options["user"]["id"].clone();
        self.counter += 1;
        let said = self.client_data("webauthn.create", options);
        let mut data = self.data(ATTESTED);
        data.extend([0; 16]); // no model
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(self.id);
        // COSE_Key (RFC 9052, section 7): EC2, ES256, P-256, x, y.
        let point = self.key.public_key().as_ref();
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..65]);
        // {"fmt": "none", "attStmt": {}, "authData": bytes}
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58".to_vec();
        object.push(u8::try_from(data.len()).unwrap());
        object.extend(data);
        self.credential(json!({ "clientDataJSON": text(&said), "attestationObject": text(&object) }))
    }

    /// What `navigator.credentials.get` gives.
    pub(super) fn get(&mut self, options: &Value) -> Value {
        self.counter += 1;
        let said = self.client_data("webauthn.get", options);
        let data = self.data(0);
        let signed = [data.as_slice(), &Sha256::digest(&said)].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        self.credential(json!({
            "clientDataJSON": text(&said), "authenticatorData": text(&data), "signature": text(signature.as_ref()),
            "userHandle": self.user_handle,
        }))
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let challenge = &options["challenge"];
        assert!(challenge.is_string(), "{options}");
        json!({ "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false })
            .to_string()
            .into_bytes()
    }

    fn data(&self, more: u8) -> Vec<u8> {
        let mut data = Sha256::digest(self.name).to_vec();
        data.push(self.flags | more);
        data.extend(self.counter.to_be_bytes());
        data
    }

    fn credential(&self, response: Value) -> Value {
        let id = text(&self.id);
        json!({ "id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {} })
    }
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
