"""Models to what they settle: the rules of the policy floor, servers, and what policies ask of them."""

from reaper.config import models
from reaper.config.labels import Only
from reaper.config.settings import Server
from reaper.policy import rules
from reaper.policy.match import Match
from reaper.policy.refill_guard import DEFAULT_CHURN, Churn
from reaper.policy.selector import NO_KEYS, Selector


def policy(model: models.Policy) -> rules.Policy:
    """A policy as it decides."""
    return rules.Policy(
        name=model.name,
        description=model.description,
        mode=rules.Mode(model.mode),
        match=_match(model.match),
        allowlist=selector(model.allowlist),
        despite=frozenset(model.despite or ()),
        when=rules.When(model.when.connections_used) if model.when else None,
        during=tuple(model.during or ()),
        keep=rules.Keep(newest=model.keep.newest, per=tuple(model.keep.per)) if model.keep else None,
        cap=rules.Cap(most=model.cap.most, per=tuple(model.cap.per)) if model.cap else None,
        action=rules.Action(model.action),
        pace=model.pace.per_cycle if model.pace else rules.DEFAULT_PACE,
        brake=_brake(model.brake) if model.brake else None,
        churn=_churn(model.churn) if model.churn else None,
    )


def selector(model: models.Selector | None) -> Selector:
    """A selector; without one, nobody is named."""
    if model is None:
        return NO_KEYS
    return Selector(
        role=tuple(model.role or ()),
        database=tuple(model.database or ()),
        application=tuple(model.application or ()),
        client=tuple(model.client or ()),
    )


def server(model: models.Server) -> Server:
    """A server as it is watched."""
    labels = tuple(sorted((model.labels or {}).items()))
    return Server(name=model.name, dsn=model.dsn, labels=labels)


def only(model: models.Policy) -> Only:
    """Which servers a policy concerns; without `only`, all of them."""
    return Only(tuple((name, frozenset(values)) for name, values in sorted((model.only or {}).items())))


def _match(model: models.Match) -> Match:
    return Match(
        states=tuple(model.state or ()),
        selector=selector(model),
        idle_for=model.idle_for,
        transaction_for=model.transaction_for,
        connected_for=model.connected_for,
        running_for=model.running_for,
        holds_back_vacuum=model.holds_back_vacuum,
        blocking=model.blocking,
    )


def _churn(model: models.Churn) -> Churn:
    default = DEFAULT_CHURN
    return Churn(
        within=default.within if model.within is None else model.within,
        share=default.share if model.share is None else model.share,
        acts=default.acts if model.acts is None else model.acts,
        pause=default.pause if model.pause is None else model.pause,
        longest=default.longest if model.longest is None else model.longest,
    )


def _brake(model: models.Brake) -> rules.Brake:
    default = rules.DEFAULT_BRAKE
    return rules.Brake(
        share=default.share if model.share is None else model.share,
        above=default.above if model.above is None else model.above,
    )
