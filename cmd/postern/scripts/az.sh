#!/bin/sh
# Registers Postern in Entra with the Azure CLI, and prints the Exchange Online commands that let it reach the mailboxes of
# one group only (the CLI has none for Exchange). Read it before you run it. It can be run again: what is there stays.
# Needs az, signed in as an administrator who may register applications: az login --allow-no-subscriptions
set -eu

NAME='Postern'
APP_ID='@CLIENT_ID@'           # an application or managed identity that is there already; empty registers a new one
TENANT_WIDE=no                 # yes: every mailbox of the tenant, by admin consent; no: only the group below
CERTIFICATE='@CERTIFICATE@'    # certificate file (PEM, without the key) to upload; empty makes a client secret

say() { echo "$@" >&2; }
# What has just been made is not known everywhere at once.
retry() { n=1; until "$@"; do [ "$n" -lt 6 ] || return 1; n=$((n + 1)); say "Trying again in 10 s ..."; sleep 10; done; }

if [ "$(az cloud show --query name --output tsv)" != '@AZURE_CLOUD@' ]; then
    say "Sign in to the right cloud first: az cloud set --name @AZURE_CLOUD@; az login --allow-no-subscriptions"
    exit 1
fi
TENANT_ID=$(az account show --query tenantId --output tsv)

# --- the app registration and its enterprise application ---
NEW=no
if [ -z "$APP_ID" ]; then
    if [ -n "$(az ad app list --filter "displayName eq '$NAME'" --query '[].appId' --output tsv)" ]; then
        say "There is an application called $NAME already: write its Application (client) ID into APP_ID, or choose another NAME."
        exit 1
    fi
    NEW=yes
    APP_ID=$(az ad app create --display-name "$NAME" --sign-in-audience AzureADMyOrg --query appId --output tsv)
    SP_ID=$(retry az ad sp create --id "$APP_ID" --query id --output tsv)
else
    SP_ID=$(az ad sp show --id "$APP_ID" --query id --output tsv)
fi

# --- what it signs in with; those it has stay ---
SECRET=
if [ -n "$CERTIFICATE" ]; then
    retry az ad app credential reset --id "$APP_ID" --cert "@$CERTIFICATE" --append --output none
elif [ "$NEW" = yes ]; then
    SECRET=$(retry az ad app credential reset --id "$APP_ID" --display-name "$NAME" --years 1 --append --query password --output tsv)
fi

# --- permissions for the whole tenant, only if wanted: with these, the group below limits nothing ---
if [ "$TENANT_WIDE" = yes ]; then
    GRAPH=00000003-0000-0000-c000-000000000000
    GRAPH_SP=$(az ad sp show --id "$GRAPH" --query id --output tsv)
    for ROLE in e2a3a72e-5f79-4c64-b1b1-878b674786c9 b633e1c5-b582-4048-a93e-9f11b44c7e96; do    # Mail.ReadWrite, Mail.Send
        # Listed on the registration, so that the portal shows it under API permissions, and granted.
        [ "$NEW" = no ] || az ad app permission add --id "$APP_ID" --api "$GRAPH" --api-permissions "$ROLE=Role" --only-show-errors
        retry az rest --method post --url "@GRAPH_URL@/v1.0/servicePrincipals/$SP_ID/appRoleAssignments" \
            --body "{\"principalId\": \"$SP_ID\", \"resourceId\": \"$GRAPH_SP\", \"appRoleId\": \"$ROLE\"}" --output none
    done
else
    echo "Run this in PowerShell 7 (pwsh), as an Exchange administrator:"
    echo
    echo "\$Name  = '$NAME'"
    echo "\$AppId = '$APP_ID'"
    echo "\$SpId  = '$SP_ID'"
    cat <<'EXCHANGE'
@EXCHANGE@
EXCHANGE
fi

# --- what postern setup asks for ---
echo
echo "Application (client) ID  $APP_ID"
echo "Directory (tenant) ID    $TENANT_ID"
[ -z "$SECRET" ] || echo "Client secret            $SECRET"
