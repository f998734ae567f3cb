// A certified OpenID provider with four people, for the checks of `oidc.mjs`.
//
// Settings: BAILIWICK_URL (http://localhost:PORT). Prints `provider URL` when it listens; ends with its parent's
// signal.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { once } from "node:events";
import { Provider } from "oidc-provider";

const bailiwick = process.env.BAILIWICK_URL;
const resource = "https://bailiwick.example/api";
const people = { alice: { account: "acme" }, bob: { account: "globex" }, carol: { account: "acme" }, mallory: { account: "acme" } };

/** A key of a kind that Bailiwick takes. */
const key = (alg, use, kind, options) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }),
  kid: `${alg}-of-today`,
  alg,
  use,
});
const keys = [
  key("RS256", "sig", "rsa", { modulusLength: 2048 }),
  key("PS384", "sig", "rsa", { modulusLength: 2048 }),
  key("ES256", "sig", "ec", { namedCurve: "P-256" }),
  key("EdDSA", "sig", "ed25519"),
];

/** A program's client, whose identity tokens are signed so. */
const program = (alg) => ({
  client_id: `program-${alg}`,
  redirect_uris: ["http://127.0.0.1:3000/callback"],
  token_endpoint_auth_method: "none",
  application_type: "native",
  id_token_signed_response_alg: alg,
});

// The address is known when it listens, and the provider needs it to be made.
const server = createServer((request, response) => handle(request, response));
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "bailiwick",
      client_secret: "client+secret/with: signs",
      redirect_uris: [`${bailiwick}/login/oidc/test/callback`],
    },
    ...["RS256", "PS384", "ES256", "EdDSA"].map(program),
  ],
  jwks: { keys },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "PS384", "ES256", "EdDSA"] },
  pkce: { required: () => true },
  scopes: ["openid", "acct"],
  claims: { openid: ["sub"], acct: ["account"] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => people[id] && { accountId: id, claims: async () => ({ sub: id, ...people[id] }) },
  extraTokenClaims: (_, token) => people[token.accountId],
  loadExistingGrant: async ({ oidc }) => {
    const grant = new provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope("openid acct");
    grant.addResourceScope(resource, "api");
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({
        scope: "api",
        audience: resource,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
  cookies: { keys: ["a key of this check alone"] },
});
const handle = provider.callback();
console.log(`provider ${issuer}`);
