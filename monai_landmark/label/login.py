"""Who may come in, where users log in: the tokens that a realm (Keycloak) signs.

MONAI Label 0.8.5 asks PyJWT to check a token without naming an algorithm. PyJWT 2 refuses that, so no user at all would
be let in, and PyJWT 1 would have taken a token that anybody signs with the realm's public key as if it were a password
(HS256). So this module checks the tokens itself, and MONAI Label's routes and roles stay as they are.
"""

from __future__ import annotations

from typing import Any

import jwt
import requests
from monailabel.config import settings
from monailabel.endpoints.user import auth

from monai_landmark.label.checks import RequestError

__all__ = ["ALGORITHMS", "LoginError", "check_tokens", "user_of"]

#: Keycloak's default, and the kind of key that MONAI Label asks the realm for.
ALGORITHMS = ("RS256",)


class LoginError(RequestError):
    """The realm does not answer, so nobody can be let in."""

    status = 503


def check_tokens() -> None:
    """Have MONAI Label ask :func:`user_of` wherever a user must log in."""
    auth.from_token = user_of


def user_of(token: str) -> Any:
    """The user whom a token names.

    Args:
        token: JSON Web Token (RFC 7519) as the client sent it.

    Returns:
        MONAI Label's ``User``; without log-in, the one who may do everything.

    Raises:
        jwt.InvalidTokenError: if the token is not one of the realm's, has no end or is past it, or names nobody.
        LoginError: if the realm's key cannot be had.
    """
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return auth.DEFAULT_USER
    # Keycloak's access tokens are not made out to one application ("aud": "account"), so the audience says nothing.
    options = {"require": ["exp"], "verify_aud": False}
    claims = jwt.decode(token, _realm_key(), algorithms=list(ALGORITHMS), options=options)
    name = claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str):
        raise jwt.InvalidTokenError("the token names no user")
    return auth.User(username=name, roles=_roles(claims))


def _realm_key() -> str:
    try:
        return str(auth.get_public_key(settings.MONAI_LABEL_AUTH_REALM_URI))
    except (requests.RequestException, KeyError, TypeError) as error:
        action = "start the realm, and see MONAI_LABEL_AUTH_REALM_URI"
        raise LoginError("the realm that users log in to does not give its key", action=action) from error


def _roles(claims: Any) -> list[str]:
    """Of a token; none where it has no such claim."""
    for key in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        claims = claims.get(key) if isinstance(claims, dict) else None
    return [role for role in claims if isinstance(role, str)] if isinstance(claims, list) else []
