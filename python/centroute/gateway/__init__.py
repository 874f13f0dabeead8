"""The OpenAI-compatible gateway behind ``centroute serve``; ``docs/gateway.md`` describes it.

Input: requests of OpenAI's API. Output: the answers of upstreams, chosen by a router, byte for byte.
"""
