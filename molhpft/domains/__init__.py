"""Data to tasks and encoders to chains, a folder a domain; beside them what all domains share.

`files` (places, whole writes, digests, cache, downloads), `weights` (files of others, the hub),
`parallel` (processes), `console` (text and progress) and `extras` (optional packages).
"""
