//! The sealed list of verbs. A verb says what it is called on the record and on what it acts; the
//! policy says who may. A test compares this list with the policy's schema, in both directions.

use super::resource::{
    Account, Agent, Approval, Host, Job, Notification, Resource, Sandbox, SecretUse, Session, Space, ToolCall, User,
};

mod sealed {
    pub trait Sealed {}
}

/// An act that can be permitted.
pub trait Verb: sealed::Sealed + Send + Sync + 'static {
    /// On what it acts.
    type Resource: Resource;
    /// Its name in the policy and on the record.
    const NAME: &'static str;
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident($resource:ty) = $text:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}
            impl sealed::Sealed for $name {}
            impl Verb for $name {
                type Resource = $resource;
                const NAME: &'static str = $text;
            }
        )*
        /// Every verb: its name, and the kind of its resource.
        pub const ALL: &[(&str, &str)] = &[$(($text, <$resource as Resource>::KIND)),*];
    };
}

verbs! {
    /// Create an account.
    CreateAccount(Host) = "account.create";
    /// List all accounts.
    ListAccounts(Host) = "account.list";
    /// Delete an account with all that it owns.
    DeleteAccount(Host) = "account.delete";
    /// Read the host's own log.
    ReadHostAudit(Host) = "host.audit.read";
    /// Erase what the oldest events of the host's own log say.
    RetireHostAudit(Host) = "host.audit.retire";
    /// List the registered clients of the authorization server.
    ListClients(Host) = "host.client.list";
    /// Register a client of the authorization server.
    CreateClient(Host) = "host.client.create";
    /// Take a client's registration away.
    DeleteClient(Host) = "host.client.delete";
    /// See which of the host's keys the accounts' data keys lie under.
    ReadVault(Host) = "host.vault.read";
    /// Encrypt all accounts' data keys anew under the host's present key.
    RewrapKeys(Host) = "host.vault.rewrap";

    /// See the account's own facts.
    ReadAccount(Account) = "account.read";
    /// List the account's users.
    ListUsers(Account) = "user.list";
    /// Create a user.
    CreateUser(Account) = "user.create";
    /// List agents.
    ListAgents(Account) = "agent.list";
    /// Create or change an agent's definition.
    PutAgent(Account) = "agent.put";
    /// List the spaces that one may see.
    ListSpaces(Account) = "space.list";
    /// Create a space of one's own.
    CreateSpace(Account) = "space.create";
    /// List the running sandboxes that one may see.
    ListSandboxes(Account) = "sandbox.list";
    /// List the approvals that one may decide.
    ListApprovals(Account) = "approval.list";
    /// List one's sessions.
    ListSessions(Account) = "session.list";
    /// Read one's own events.
    ReadAudit(Account) = "audit.read";
    /// Read all events of the account.
    ReadAccountAudit(Account) = "audit.read.account";
    /// Erase what the account's oldest events say.
    RetireAudit(Account) = "audit.retire";
    /// Read the account's own policies.
    ReadPolicy(Account) = "policy.read";
    /// Set the account's own policies.
    PutPolicy(Account) = "policy.put";
    /// Read one's own use, and how far the account's budgets are used up.
    ReadUsage(Account) = "usage.read";
    /// Read the use of all users of the account.
    ReadAccountUsage(Account) = "usage.read.account";
    /// Read what the operator set as the account's limits.
    ReadAccountLimits(Account) = "account.limits.read";
    /// Set the account's limits.
    SetAccountLimits(Account) = "account.limits.set";

    /// List the account's secrets: their names and grants.
    ListSecrets(Account) = "secret.list";
    /// Set a secret's value.
    SetSecret(Account) = "secret.set";
    /// Say which agents may use a secret, and for which hosts.
    GrantSecret(Account) = "secret.grant";
    /// Delete a secret.
    DeleteSecret(Account) = "secret.delete";
    /// Seal all secrets of the account anew under a new data key.
    RotateDataKey(Account) = "secret.key.rotate";
    /// List the account's targets of notifications, without their addresses.
    ListNotifications(Account) = "notification.list";
    /// Add a target.
    CreateNotification(Account) = "notification.create";
    /// Change, pause or resume a target.
    UpdateNotification(Account) = "notification.update";
    /// Remove a target.
    DeleteNotification(Account) = "notification.delete";
    /// Try a target.
    TestNotification(Account) = "notification.test";

    /// See a user.
    ReadUser(User) = "user.read";
    /// Delete a user with all that is theirs.
    DeleteUser(User) = "user.delete";
    /// Change a user's role.
    SetRole(User) = "user.role.set";
    /// Make a key for a user.
    CreateKey(User) = "key.create";
    /// List a user's keys.
    ListKeys(User) = "key.list";
    /// Revoke a key.
    RevokeKey(User) = "key.revoke";
    /// Sign in: make a login of one's own.
    SignIn(User) = "auth.login";
    /// List a user's logins.
    ListDevices(User) = "device.list";
    /// End a login.
    RevokeDevice(User) = "device.revoke";
    /// Set one's own password, with the present one.
    SetPassword(User) = "auth.password.set";
    /// Give another user a password.
    ResetPassword(User) = "auth.password.reset";
    /// Set up, change or take away one's own second factors, with one's password.
    SetFactors(User) = "auth.2fa.set";
    /// Take away another user's second factors, who has lost them.
    ResetFactors(User) = "auth.2fa.reset";
    /// Let a user sign in again who failed too often.
    UnlockUser(User) = "auth.unlock";
    /// Let an application act for oneself.
    AllowApplication(User) = "application.allow";
    /// List the applications that may act for a user.
    ListApplications(User) = "application.list";
    /// Let an application act for a user no more.
    RevokeApplication(User) = "application.revoke";
    /// Get an application's next tokens, or give them back.
    UseApplication(User) = "application.use";

    /// Read an agent's definition.
    ReadAgent(Agent) = "agent.read";
    /// Begin a session with an agent.
    UseAgent(Agent) = "agent.use";
    /// Delete an agent's definition.
    DeleteAgent(Agent) = "agent.delete";

    /// Know that a space exists, its name and owner.
    SeeSpace(Space) = "space.see";
    /// Read a space's files, plan and status.
    ReadSpace(Space) = "space.read";
    /// Change a space's files and plan.
    WriteSpace(Space) = "space.write";
    /// Rename or describe a space.
    UpdateSpace(Space) = "space.update";
    /// Give or take grants.
    GrantSpace(Space) = "space.grant";
    /// Delete a space.
    DeleteSpace(Space) = "space.delete";
    /// Begin a session in a space.
    CreateSession(Space) = "session.create";
    /// List the jobs of a space.
    ListJobs(Space) = "job.list";
    /// Put a job into the queue of a space.
    CreateJob(Space) = "job.create";

    /// Read a session's stream.
    ReadSession(Session) = "session.read";
    /// Send a message or an answer into a session.
    SendSession(Session) = "session.send";
    /// Cancel, clear, compact or reset a session.
    ControlSession(Session) = "session.control";
    /// Call the model for a session, with the model's credential.
    CallModel(Session) = "model.call";
    /// Start or enter the sandbox of a session.
    StartSandbox(Session) = "sandbox.start";

    /// See a job and read its log.
    ReadJob(Job) = "job.read";
    /// Start the command of a job.
    StartJob(Job) = "job.start";
    /// Cancel a job.
    CancelJob(Job) = "job.cancel";

    /// See a running sandbox.
    SeeSandbox(Sandbox) = "sandbox.see";
    /// End a running sandbox, with whatever runs in it.
    EndSandbox(Sandbox) = "sandbox.end";

    /// See a pending approval.
    ReadApproval(Approval) = "approval.read";
    /// Decide a pending approval.
    DecideApproval(Approval) = "approval.decide";

    /// Put a secret into a request that a sandbox makes, or into a call of a model.
    ReleaseSecret(SecretUse) = "secret.release";
    /// Ask the token endpoint of a secret that is an OAuth client's grant for a new access token.
    RefreshSecret(SecretUse) = "secret.refresh";
    /// Tell a target of notifications something.
    SendNotification(Notification) = "notification.send";

    /// Run a tool with given arguments.
    CallTool(ToolCall) = "tool.call";
}
