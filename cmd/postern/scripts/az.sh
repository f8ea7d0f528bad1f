#!/bin/sh
# Registers Postern in Entra with the Azure CLI, and prints the Exchange Online commands that let it reach the mailboxes of
# one group only (the CLI has none for Exchange). Read it before you run it. Needs az, signed in by: az login
set -eu

TENANT_WIDE=no                 # yes: every mailbox of the tenant, by admin consent; no: only the group below
CERTIFICATE='@CERTIFICATE@'    # certificate file (PEM, without the key) to upload; empty makes a client secret

# --- the app registration and its enterprise application ---
APP_ID=$(az ad app create --display-name Postern --sign-in-audience AzureADMyOrg --query appId --output tsv)
SP_ID=$(az ad sp create --id "$APP_ID" --query id --output tsv)
TENANT_ID=$(az account show --query tenantId --output tsv)

# --- what it signs in with ---
if [ -n "$CERTIFICATE" ]; then
    az ad app credential reset --id "$APP_ID" --cert "@$CERTIFICATE" --append --output none
    SECRET=
else
    SECRET=$(az ad app credential reset --id "$APP_ID" --display-name Postern --years 1 --append --query password --output tsv)
fi

# --- permissions for the whole tenant, only if wanted: with these, the group below limits nothing ---
if [ "$TENANT_WIDE" = yes ]; then
    GRAPH=00000003-0000-0000-c000-000000000000
    az ad app permission add --id "$APP_ID" --api "$GRAPH" --api-permissions \
        e2a3a72e-5f79-4c64-b1b1-878b674786c9=Role \
        b633e1c5-b582-4048-a93e-9f11b44c7e96=Role      # Mail.ReadWrite and Mail.Send
    sleep 30                                           # until the enterprise application is known everywhere
    az ad app permission admin-consent --id "$APP_ID"
else
    echo "Run this in PowerShell (pwsh), as an Exchange administrator:"
    echo
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
