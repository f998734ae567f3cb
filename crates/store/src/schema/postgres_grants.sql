-- What the server's role may do: rows, and of the record only what adds to it or retires. Run with
-- `bailiwick.role` set to the role's name.
DO $$
DECLARE r TEXT := current_setting('bailiwick.role');
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), r);
  EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I', current_schema(), r);
  EXECUTE format('GRANT SELECT ON schema_version TO %I', r);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON account, jail_user_given, key_locator, account_user, api_key, '
    'agent, space, space_grant, session, session_event, session_message, delivery, tool_call, approval, file_seen, '
    'account_password, device, totp, recovery_code, passkey, sign_in_tally, account_limits, usage_day, '
    'application, application_token, oauth_client, data_key, secret, secret_grant, vault_key, '
    'job, job_event, notification, notice TO %I', r);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE ON tree_head TO %I', r);
  EXECUTE format('GRANT SELECT, INSERT ON tree_tile, event TO %I', r);
  EXECUTE format('GRANT UPDATE (at, actor, credential, address, request, action, resource, space, agent, phase, verdict, '
    'intent, detail, untold) ON event TO %I', r);
END $$;
