"""lowerings"""
