"""portable"""
